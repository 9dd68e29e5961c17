"""DeSparsify: make all tokens look equally significant, so that none is dropped."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.search import ProjectedGradient, cosine
from effattack.objectives import KeepPrediction, UniformSignificance
from effattack.threats import Linf
from effattack.victim import Victim


class DeSparsify(GradientAttack):
    """Drives the significance of the tokens of ATS towards uniform, so that none is dropped.

    Hazan, Elovici, Shabtai et al.: "DeSparsify: Adversarial Attack Against Token Sparsification
    Mechanisms in Vision Transformers", NeurIPS 2024 (arXiv 2402.02554); the single-image attack on
    ATS, equations 2 to 6.

    Minimises the mean over blocks of KL(S ‖ uniform) plus λ times the cross-entropy to the clean
    prediction, by PGD with steps falling from ε/10 to 0 along a cosine.

    Official code: none (the repository holds figures only). The number of iterations is not given
    in the paper; 50 is ours. Divergences: the best iterate by executed MACs is returned; iterates
    are rounded to 8 bits.

    Args:
        victim: ATS on a ViT.
        eps: l-inf budget in [0, 1] pixels (paper: 16/255; 8 and 32 in its appendix).
        steps: gradient evaluations.
        prediction_weight: λ (paper: 8e-4).
        seed: of the random start.

    Raises:
        NotApplicable: for other victims.
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 16 / 255,
        *,
        steps: int = 50,
        prediction_weight: float = 8e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(
            victim,
            Linf(eps),
            KeepPrediction(UniformSignificance(), prediction_weight),
            ProjectedGradient(steps, cosine(0.1)),
            seed,
        )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.family == "token sparsification":
            return None
        return (
            f"DeSparsify needs token sparsification; {victim.name} is a victim of {victim.family}"
        )
