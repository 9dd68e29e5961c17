"""QuantAttack: more columns of activations become outliers of LLM.int8()."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.objectives import Objective
from effattack.attacks.published.quantattack_losses import NearOutliers
from effattack.attacks.searches.projected import ProjectedGradient, constant, cosine_restarts
from effattack.attacks.searches.training import Steepest, Training
from effattack.attacks.universal import UniversalAttack
from effattack.threats import ArrayThreat

STEP = 0.001
"""The paper's first step, 0.002 on pixels in [-1, 1], in [0, 1] pixels; it falls to 1/200."""


class QuantAttack(GradientAttack):
    """Pushes activations over the threshold of LLM.int8(), so that more columns run in float.

    Baras, Zolfi, Elovici, Shabtai: "QuantAttack: Exploiting Dynamic Quantization to Attack
    Vision Transformers", WACV 2025 (arXiv 2312.02220); loss in
    :mod:`effattack.attacks.published.quantattack_losses`.

    PGD from the clean image, steps from 0.001 to 0.000005 along cosines with three warm restarts.
    The paper counts in the processor's pixels, in [-1, 1]: its ε = 16/255 is 8/255 here, its step
    0.002 is 0.001, restarting every 1,000 of 3,000 iterations.

    Official code: https://github.com/barasamit/QuantAttack. Divergences: the best iterate by
    executed MACs is returned, not the last; iterates are rounded to 8 bits; of other numbers of
    ``steps``, each of the three cycles takes a third. The total-variation term is switched off in
    the official code, and left out here.

    Args:
        victim: LLM.int8() on any model.
        eps: l-inf budget in [0, 1] pixels (paper: 8/255).
        threat: another budget in place of ``eps`` (paper: patches of 16 to 64 pixels).
        steps: gradient evaluations; with fewer than the paper's, use a larger ``step_size``.
        step_size: the first, in [0, 1] pixels.
        band: which |a| are pushed (paper: (2, 7) for θ = 6; for another θ, around that).
        prediction_weight: of the distance of the logits.
        seed: of the places of a patch.

    Raises:
        NotApplicable: for other victims.
        UsageError: for a band that is none.
    """

    threat: ArrayThreat

    steps: int = 3000
    step_size: float = STEP
    band: tuple[float, float] = (2.0, 7.0)
    prediction_weight: float = 50.0

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        first = self.step_size * self.threat.span / self.threat.reach
        schedule = cosine_restarts(first, first / 200, cycles=3)
        search = ProjectedGradient(self.steps, schedule, random_start=False)
        return NearOutliers(*self.band, prediction_weight=self.prediction_weight), search


class UniversalQuantAttack(UniversalAttack):
    """``QuantAttack``'s loss for one perturbation of all images, or one per class.

    The paper's universal attack: 250 images, 200 epochs, a constant step of 0.001; masks of 16 to
    64 pixels are ``threat="patch:16"`` to ``"patch:64"``. The official code crafts in training
    mode; here it is eval mode, in which bitsandbytes decomposes on every device.

    Args:
        victim: LLM.int8() on any model.
        eps: l-inf budget in [0, 1] pixels (paper: 8/255).
        threat: another budget in place of ``eps``.
        epochs: passes over the images that it is fitted on.
        batch: images of one step (ours).
        step_size: in [0, 1] pixels.
        per_class: one perturbation per class, chosen by the label.
        band: which |a| are pushed.
        prediction_weight: of the distance of the logits.
        seed: of the order of the batches and the places of a patch.

    Raises:
        NotApplicable: for other victims.
        UsageError: for a band that is none.
    """

    epochs: int = 200
    batch: int = 10
    step_size: float = STEP
    per_class: bool = False
    band: tuple[float, float] = (2.0, 7.0)
    prediction_weight: float = 50.0

    def composed(self) -> tuple[Objective, Training]:
        size = self.step_size * self.threat.span / self.threat.reach
        training = Training(self.epochs, self.batch, Steepest(constant(size)))
        return NearOutliers(*self.band, prediction_weight=self.prediction_weight), training
