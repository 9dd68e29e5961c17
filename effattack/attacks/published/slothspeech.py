"""SlothSpeech: speech that a recogniser does not stop writing down."""

from __future__ import annotations

from effattack.attacks.published.generators_losses import EndLogits
from effattack.attacks.searches.penalised import Penalised, PenalisedAttack, Pull


class SlothSpeech(PenalisedAttack):
    """SlothSpeech's loss on the samples of a recording, by Adam.

    Haque et al., "SlothSpeech: Denial-of-service Attack Against Speech Recognition Models",
    Interspeech 2023 (arXiv 2306.00794); official code 0xrutvij/SlothSpeech. Minimises
    Σ_t z_t(end) − z_T(second) + .1 ‖δ‖²: :class:`.generators_losses.EndLogits`.

    Divergences: samples are changed (theirs: log-mel frames, which no microphone records), inside a
    budget if one is given (theirs: the price alone), at a learning rate in the range of the samples
    (theirs: .1 in that of the frames); logits are those before a recogniser suppresses tokens; the
    best iterate by executed work is returned, rounded to the steps of the device; texts end at the
    victim's cap (theirs: 500 tokens beyond the clean text).

    Args:
        victim: one that writes text of what it hears.
        threat: a budget such as ``"linf:.002"``; None: the range of the samples alone.
        steps: gradient evaluations.
        rate: learning rate of Adam, as a share of the range of the domain.
        weight: of ‖δ‖².
        seed: of no influence.

    Raises:
        NotApplicable: for a victim that writes no text, or takes no arrays.
    """

    takes = "arrays"

    steps: int = 101
    rate: float = 0.00025
    weight: float = 0.1

    def composed(self) -> tuple[Pull, Penalised]:
        return EndLogits(), Penalised(self.steps, self.rate, self.weight)
