"""Slow and wrong at once: success counts only where both hold."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import AlsoAnswer, MarginHinge, Objective, label_trails
from effattack.attacks.searches.best import wrong
from effattack.attacks.searches.projected import ProjectedGradient


class SlowAndWrong(GradientAttack):
    """The house attack on work and answer together.

    Only iterates with a prediction other than the label are accepted, and of these the one with
    most executed MACs, if they are no fewer than those of the clean image. So an image that does
    more work is also wrong, and the attack success of this row counts only those where both hold;
    images that do the most work as they are go on until they are wrong.
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

    steps: int = 50
    weight: float = 0.5
    kappa: float = 0.05
    restarts: int = 1

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        search = house_search(self.steps, restarts=self.restarts, accept=wrong, ask=wrong)
        return AlsoAnswer(MarginHinge(self.kappa), label_trails, self.weight, self.kappa), search
