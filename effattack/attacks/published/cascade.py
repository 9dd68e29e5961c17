"""The attack on cascades: nobody but the last model may answer, and that one as before, or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Generator, Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import (
    AlsoAnswer,
    BatchGoal,
    Goal,
    MarginHinge,
    Objective,
    prediction_leads,
    prediction_trails,
)
from effattack.attacks.searches.best import changed, kept
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Trace, Victim

Base = Literal["keep", "break"]


@dataclass(frozen=True)
class DefeatSavers:
    """Another objective, told of the last model's logits in the place of the cascade's.

    Args:
        objective: of the work of all stages, and the answer of the last.
    """

    objective: Objective

    def check(self, trace: Trace, victim: Victim) -> None:
        if trace.stage_logits is None or not trace.gates:
            raise NotApplicable(_stages_needed(victim))

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert trace.stage_logits is not None
        return self.objective(trace._replace(logits=trace.stage_logits[:, -1]), goal)


class CascadeAttack(GradientAttack):
    """Defeats the saver and every later stage, and keeps or breaks the base's prediction.

    Ours; none is published. As in :class:`~effattack.attacks.Slowdown`, every stage is
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
        kappa: κ of the hinges, in units of the margins.
        weight: of the answer of the last model against the work.
        restarts: independent runs.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without stages.
        UsageError: if ``base`` is neither "keep" nor "break".
    """

    base: Base = "keep"
    steps: int = 50
    kappa: float = 0.05
    weight: float = 1.0
    restarts: int = 1

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        if self.base not in get_args(Base):
            raise UsageError(f"base = {self.base!r}: choose 'keep' or 'break'")
        keep = self.base == "keep"
        answer = prediction_leads if keep else prediction_trails
        wanted = AlsoAnswer(MarginHinge(self.kappa), answer, self.weight, self.kappa)
        search = house_search(
            self.steps,
            restarts=self.restarts,
            accept=kept if keep else None,
            ask=None if keep else changed,
        )
        return DefeatSavers(wanted), search

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
