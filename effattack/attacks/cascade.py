"""The attack on cascades: nobody but the last model may answer, and that one as before, or not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.attacks.base import GradientAttack, budget
from effattack.attacks.search import changed, kept
from effattack.attacks.slowdown import house_search
from effattack.errors import NotApplicable, UsageError
from effattack.objectives import BatchGoal, Goal, MarginHinge
from effattack.threats import Threat
from effattack.victim import Trace, Victim

Base = Literal["keep", "break"]


@dataclass(frozen=True)
class DefeatSavers:
    """Margin hinge over the gates of all stages, and a word on the last model.

    Of the cross-entropy of the last model to ``goal.prediction``, ``weight`` times is taken away
    ("keep") or added ("break"); added no further than log(classes) + κ, where the class is less
    likely than chance and can no longer be predicted.

    Args:
        base: what is to become of the prediction of the last model.
        kappa: κ of the hinge.
        weight: of the cross-entropy.
    """

    base: Base
    kappa: float
    weight: float

    def check(self, trace: Trace, victim: Victim) -> None:
        if trace.stage_logits is None or not trace.gates:
            raise NotApplicable(_stages_needed(victim))

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert trace.stage_logits is not None
        slow = MarginHinge(self.kappa)(trace, goal)
        base = trace.stage_logits[:, -1]
        loss = F.cross_entropy(base, goal.prediction, reduction="none")
        if self.base == "keep":
            return slow - self.weight * loss
        return slow + self.weight * loss.clamp(max=math.log(base.shape[1]) + self.kappa)


class CascadeAttack(GradientAttack):
    """Defeats the saver and every later stage, and keeps or breaks the base's prediction.

    Ours; none is published. As in :class:`effattack.attacks.slowdown.Slowdown`, every stage is
    pushed from the first step on. Other than there, the prediction that counts is the last model's
    on the clean image, whose answer it will be, not that of the cascade, which the saver may have
    given: kept, the answer is the one of a service that never used a saver; only iterates that give
    it are accepted. Broken, slow and wrong is wanted at once: work comes first, and an image that
    does the most goes on until its prediction has changed, too.

    Args:
        victim: a cascade, or an early-exit network: its last exit is the base.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        base: "keep" or "break" the prediction of the last model.
        steps: gradient evaluations per restart.
        kappa: κ of the hinge, in units of the margins.
        weight: of the cross-entropy of the last model (default: 0.1 to keep, 1 to break it).
        restarts: independent runs.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without stages.
        UsageError: if ``base`` is neither "keep" nor "break".
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 8 / 255,
        *,
        threat: Threat | str | None = None,
        base: Base = "keep",
        steps: int = 50,
        kappa: float = 0.05,
        weight: float | None = None,
        restarts: int = 1,
        seed: int = 0,
    ) -> None:
        if base not in get_args(Base):
            raise UsageError(f"base = {base!r}: choose 'keep' or 'break'")
        if weight is None:
            weight = 0.1 if base == "keep" else 1.0
        super().__init__(
            victim,
            budget(eps, threat),
            DefeatSavers(base, kappa, weight),
            house_search(
                steps,
                restarts=restarts,
                accept=kept if base == "keep" else None,
                ask=changed if base == "break" else None,
            ),
            seed,
        )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return None if victim.family in ("early exit", "cascade") else _stages_needed(victim)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        stages = goal.trace.stage_logits
        assert stages is not None
        return super().run(clean, replace(goal, logits=stages[:, -1]), generator)


def _stages_needed(victim: Victim) -> str:
    return (
        f"CascadeAttack needs the logits of every stage (cascade, early exit); {victim.name} is a "
        f"victim of {victim.family}"
    )
