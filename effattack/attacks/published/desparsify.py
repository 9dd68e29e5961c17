"""DeSparsify: no token, head or block is left out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Generator, Tensor

from effattack.attacks.base import GradientAttack, check_objective
from effattack.attacks.objectives import BatchGoal, KeepPrediction, Objective
from effattack.attacks.published.desparsify_losses import DESPARSIFY
from effattack.attacks.published.several import OneAtATime, Several
from effattack.attacks.searches.projected import ProjectedGradient, cosine
from effattack.attacks.searches.training import Steepest, Training
from effattack.attacks.universal import UniversalAttack
from effattack.threats import Linf, Threat
from effattack.victim import Victim, load_victim
from effattack.victim.digests import victim_digest
from effattack.victim.undisturbed import undisturbed


class DeSparsify(GradientAttack):
    """Equal significance of tokens (ATS), late halting (A-ViT), or policies that keep all (AdaViT).

    Beside that, the prediction is driven towards staying.

    Yehezkel, Zolfi, Baras, Elovici, Shabtai: "DeSparsify: Adversarial Attack Against Token
    Sparsification Mechanisms", NeurIPS 2024 (arXiv 2402.02554); the single-image and the ensemble
    attack, section 4, losses in :mod:`effattack.attacks.published.desparsify_losses`.

    Minimises the mechanism's loss plus λ times the cross-entropy to the clean prediction, by PGD
    with steps falling from ε/10 to 0 along a cosine. With ``others``, for an attacker who does not
    know the mechanism: at every step the loss of one victim, drawn at random, and the mean
    cross-entropy of all.

    Official code: none (the repository holds figures only). The number of iterations is not given
    in the paper; 50 is ours. Divergences: the best iterate by executed MACs is returned (with
    ``others``: by the sum of theirs, for the attacker does not know which counts); iterates are
    rounded to 8 bits; on AdaViT the mean of the policies' Gumbel samples stands for the samples.

    Args:
        victim: ATS, A-ViT or AdaViT on a ViT.
        eps: l-inf budget in [0, 1] pixels (paper: 16/255; 8 and 32 in its appendix).
        threat: another budget in place of ``eps``.
        others: further such victims, or their names, that it is crafted on as well.
        steps: gradient evaluations.
        prediction_weight: λ (paper: 8e-4).
        seed: of the random start, and of the draw.

    Raises:
        NotApplicable: for other victims.
        UsageError: for ``others`` that take other images.
    """

    others: Sequence[Victim | str] = ()
    steps: int = 50
    prediction_weight: float = 8e-4

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Linf(16 / 255)

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        search = ProjectedGradient(self.steps, cosine(0.1))
        return KeepPrediction(DESPARSIFY, self.prediction_weight), search

    def prepare(self) -> None:
        super().prepare()
        self.together: Several | None = None
        if self.others:
            known = [load_victim(e) if isinstance(e, str) else e for e in self.others]
            names = [e if isinstance(e, str) else e.name for e in self.others]
            self.others = tuple(names)
            self.settings = {**self.settings, "others": self.others}
            self.others_digest = [victim_digest(other) for other in known]
            both = (self.victim, *known)
            self.together = Several([each.searched(self.seed) for each in both])
            self.objective = OneAtATime(DESPARSIFY, self.prediction_weight)
            check_objective(self.objective, self.together)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        if self.together is None:
            return super().run(clean, goal, generator)
        with undisturbed(self.together):
            both = BatchGoal.of(self.together, clean, goal.labels, goal.callback)
            return super().run(clean, both, generator)


class UniversalDeSparsify(UniversalAttack):
    """``DeSparsify``'s loss for one perturbation of all images, one per class, or one patch.

    The paper's class-universal, universal and universal-patch variants (64 x 64 at the top left of
    224 x 224, any pixels: ``threat="patch:64@0,0"``), learnt on 1,000 images and scored on others.
    Steps fall from ε/10 to 0 along a cosine; in a patch, ε is the pixel range. Epochs and batch
    are not given in the paper; these are ours.

    Args:
        victim: ATS, A-ViT or AdaViT on a ViT.
        eps: l-inf budget in [0, 1] pixels (paper: 16/255).
        threat: another budget in place of ``eps``.
        epochs: passes over the images that it is fitted on.
        batch: images of one step.
        per_class: one perturbation per class, chosen by the label.
        prediction_weight: λ (paper: 8e-4).
        seed: of the start, the order of the batches and the places of a patch.

    Raises:
        NotApplicable: for other victims.
    """

    epochs: int = 20
    batch: int = 32
    per_class: bool = False
    prediction_weight: float = 8e-4

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Linf(16 / 255)

    def composed(self) -> tuple[Objective, Training]:
        training = Training(self.epochs, self.batch, Steepest(cosine(0.1)))
        return KeepPrediction(DESPARSIFY, self.prediction_weight), training
