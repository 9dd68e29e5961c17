"""SlowFormer: one patch, pasted on any image, makes a sparse transformer dense."""

from __future__ import annotations

from collections.abc import Sequence

from effattack.attacks.objectives import KeepPrediction, Objective
from effattack.attacks.published.slowformer_losses import slowformer_loss
from effattack.attacks.searches.projected import constant
from effattack.attacks.searches.training import Adam, Training
from effattack.attacks.universal import UniversalAttack
from effattack.threats import Patch, Threat
from effattack.victim import Victim


class SlowFormer(UniversalAttack):
    """One patch or l-inf perturbation for all images, which raises what tokens are kept by.

    That is the evenness of the CLS attention (ATS), the ponder (A-ViT), the policies (AdaViT).

    Navaneet, Koohpayegani, Sleiman, Pirsiavash: "SlowFormer: Adversarial Attack on Compute and
    Energy Consumption of Efficient Vision Transformers", CVPR 2024 (arXiv 2310.02544); section 3,
    losses in :mod:`effattack.attacks.published.slowformer_losses`.

    The patch starts from random pixels and is learnt by AdamW without decay, which is Adam, at a
    constant rate. The paper's rate is 0.2 (0.4 for ATS on DeiT-T) on normalised pixels, 0.045 in
    [0, 1]: 0.2 times ImageNet's mean standard deviation, 0.226. It trains one or two epochs on
    ImageNet, some 2,500 (A-ViT, ATS) to 20,000 (AdaViT) steps; on the few images here, epochs and
    batch are ours.

    Official code: https://github.com/UCDvision/SlowFormer. Its losses are not those of the paper:
    on A-ViT the prior has the opposite sign; on AdaViT the means of heads and blocks are not
    squared, and heads of a block that is off do not count; on ATS dropped patches do. ``loss``
    says which are meant.

    Divergences of both: the l-inf mode of the code (Table 5) bounds the pixels, not the change, and
    does not run on AdaViT: here it is a proper ball. The code rounds the patch itself at every
    step, here the attack looks at rounded images and the patch keeps its fractions; it crafts in
    training mode, with noisy gates, and takes means over a batch, here in eval mode and over every
    image; the state with most executed MACs is kept, not the last.

    Args:
        victim: ATS, A-ViT or AdaViT on a ViT.
        threat: ``"patch:16"`` at a random place, ``"patch:16@0,0"`` at a fixed one,
            ``"linf:16/255"``. Default: the paper's patch at the top left, 64 x 64 on 224 x 224, the
            same share of other images.
        epochs: passes over the images that it is fitted on.
        batch: images of one step.
        rate: of AdamW, in [0, 1] pixels.
        loss: ``"paper"``, as printed, or ``"code"``, as in the official code.
        layer_weights: w_l of the sampling blocks of ATS, the last one for all further blocks
            (default: the paper's, for the number of heads).
        prediction_weight: of the cross-entropy to the clean prediction: above 0 keeps it, below 0
            destroys it (the paper's ± L_task; its default, 0, does not care).
        seed: of the start, the order of the batches and the places of a patch.

    Raises:
        NotApplicable: for other victims.
        UsageError: for another loss.
    """

    budgeted = False

    epochs: int = 20
    batch: int = 32
    rate: float = 0.045
    loss: str = "paper"
    layer_weights: Sequence[float] | None = None
    prediction_weight: float = 0.0

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return paper_patch(victim)

    def composed(self) -> tuple[Objective, Training]:
        weights = None if self.layer_weights is None else tuple(self.layer_weights)
        wanted, weight = slowformer_loss(self.loss, weights), self.prediction_weight
        training = Training(self.epochs, self.batch, Adam(constant(self.rate)))
        return KeepPrediction(wanted, weight) if weight else wanted, training


def paper_patch(victim: Victim) -> Patch:
    """64 x 64 at the top left of 224 x 224, and the same share of a smaller image."""
    side = round(min(victim.input_shape[1:]) * 64 / 224)
    return Patch(max(1, side), (0, 0))
