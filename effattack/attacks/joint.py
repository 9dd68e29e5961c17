"""Slow and wrong at once: success counts only where both hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.base import GradientAttack, budget
from effattack.attacks.search import wrong
from effattack.attacks.slowdown import house_search
from effattack.objectives import Goal, MarginHinge, Objective
from effattack.threats import Threat
from effattack.victim import Trace, Victim


@dataclass(frozen=True)
class AlsoWrong:
    """Another objective plus a weight times min(margin, κ) of a wrong answer.

    The margin of a wrong answer is bounded as those of gates are: with m the logit of the best
    other class minus that of the label, and s the spread of the logits, m / (s + |m|).

    Args:
        slow: the objective that raises the work.
        weight: of the wrong answer.
        kappa: κ, in units of the margin.
    """

    slow: Objective
    weight: float
    kappa: float

    def check(self, trace: Trace, victim: Victim) -> None:
        self.slow.check(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        logits, label = trace.logits, goal.labels[:, None]
        rival = logits.scatter(1, label, -torch.inf).amax(1)
        lead = rival - logits.gather(1, label)[:, 0]
        spread = logits.detach().std(1).clamp_min(torch.finfo(logits.dtype).eps)
        margin = lead / (spread + lead.abs())
        return self.slow(trace, goal) + self.weight * margin.clamp(max=self.kappa)


class SlowAndWrong(GradientAttack):
    """The house attack on work and answer together.

    Only iterates with a prediction other than the label are accepted, and of these the one with
    most executed MACs, if they are no fewer than those of the clean image. So an image that does
    more work is also wrong, and the attack success of this row counts only those where both hold.
    Slow and right is ``Slowdown(keep_prediction=True)``.

    Args:
        victim: any victim with gates.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations per restart.
        weight: of the wrong answer against the work.
        kappa: κ of the hinges, in units of the margins.
        restarts: independent runs.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without gates.
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 8 / 255,
        *,
        threat: Threat | str | None = None,
        steps: int = 50,
        weight: float = 0.5,
        kappa: float = 0.05,
        restarts: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            victim,
            budget(eps, threat),
            AlsoWrong(MarginHinge(kappa), weight, kappa),
            house_search(steps, restarts=restarts, accept=wrong),
            seed,
        )
