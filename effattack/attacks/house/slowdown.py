"""The house attack: push all gates at once, by the work that each makes possible."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.objectives import MarginHinge, Objective, StayUnnoticed
from effattack.attacks.searches.best import Acceptance, kept
from effattack.attacks.searches.projected import ProjectedGradient, cosine
from effattack.attacks.searches.training import Steepest, Training
from effattack.attacks.universal import UniversalAttack


def house_objective(kappa: float, keep_prediction: bool) -> Objective:
    """Margin hinge; with one for the prediction, if that is to stay."""
    hinge = MarginHinge(kappa)
    return StayUnnoticed(hinge) if keep_prediction else hinge


def house_search(
    steps: int,
    first: float = 1.0,
    *,
    restarts: int = 1,
    accept: Acceptance | None = None,
    ask: Acceptance | None = None,
) -> ProjectedGradient:
    """Projected gradient with momentum, its steps falling along a cosine from ``first`` of ε."""
    return ProjectedGradient(
        steps, cosine(first), restarts=restarts, momentum=0.75, accept=accept, ask=ask
    )


class Slowdown(GradientAttack):
    """Margin hinge, weighted by cost-to-go, under projected gradient with momentum.

    Works on every victim with gates; of prompts, words are changed by their coordinate gradient,
    and a step is five gradients' worth: one of them, and twelve candidates; of inputs of several
    parts, those that the threat names are searched in turn. With ``keep_prediction`` the objective
    gains the lead of the clean prediction up to 0.05, or of all that an answer of boxes is chosen
    from, and only iterates that keep it are accepted: on the returned inputs the agreement is
    100 %.

    Args:
        victim: any victim with gates.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``: ``L2(1.0)``, ``Patch(16)`` or their text form.
        steps: gradient evaluations per restart.
        kappa: κ of the hinge, in units of the margins.
        keep_prediction: slow but unnoticed.
        restarts: independent runs.
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without gates.
    """

    takes = "arrays or tokens or graph or parts"

    steps: int = 50
    kappa: float = 0.05
    keep_prediction: bool = False
    restarts: int = 1

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        accept = kept if self.keep_prediction else None
        search = house_search(self.steps, restarts=self.restarts, accept=accept)
        return house_objective(self.kappa, self.keep_prediction), search


class UniversalSlowdown(UniversalAttack):
    """``Slowdown``'s objective, for one perturbation of all images or one per class.

    Fitted beforehand.

    Args:
        victim: any victim with gates.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``: a ball, or a patch such as ``"patch:16"``.
        epochs: passes over the images that it is fitted on.
        batch: images of one step.
        per_class: one perturbation per class, chosen by the label.
        kappa: κ of the hinge, in units of the margins.
        keep_prediction: charge for changed predictions; unlike ``Slowdown``, it does not exclude
            them.
        seed: of the start, the order of the batches and the places of a patch.

    Raises:
        NotApplicable: for a victim without gates.
    """

    epochs: int = 20
    batch: int = 32
    per_class: bool = False
    kappa: float = 0.05
    keep_prediction: bool = False

    def composed(self) -> tuple[Objective, Training]:
        training = Training(self.epochs, self.batch, Steepest(cosine(0.25)))
        return house_objective(self.kappa, self.keep_prediction), training
