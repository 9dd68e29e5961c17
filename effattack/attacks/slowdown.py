"""The house attack: open every gate that can be opened, cheapest push first."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.search import ProjectedGradient, cosine
from effattack.objectives import KeepPrediction, MarginHinge, Objective
from effattack.threats import Linf
from effattack.victim import Victim


class Slowdown(GradientAttack):
    """Margin hinge, weighted by cost-to-go, under projected gradient with cosine steps from ε.

    Works on every victim with gates. With ``keep_prediction`` the objective loses 0.1 times the
    cross-entropy to the clean prediction, and only iterates that keep it are accepted: on the
    returned images the agreement is 100 %.

    Args:
        victim: any victim with gates.
        eps: l-inf budget in [0, 1] pixels.
        steps: gradient evaluations per restart.
        kappa: κ of the hinge, in units of the margins.
        keep_prediction: slow but unnoticed.
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
        steps: int = 50,
        kappa: float = 0.05,
        keep_prediction: bool = False,
        restarts: int = 1,
        seed: int = 0,
    ) -> None:
        hinge = MarginHinge(kappa)
        objective: Objective = KeepPrediction(hinge, 0.1) if keep_prediction else hinge
        super().__init__(
            victim,
            Linf(eps),
            objective,
            ProjectedGradient(
                steps, cosine(1.0), restarts=restarts, keep_prediction=keep_prediction
            ),
            seed,
            kappa=kappa,
            keep_prediction=keep_prediction,
            restarts=restarts,
        )
