"""DeepSloth: make every internal classifier as unsure as it can be."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack
from effattack.attacks.search import ProjectedGradient, constant
from effattack.objectives import UniformExits
from effattack.threats import Linf
from effattack.victim import Victim


class DeepSloth(GradientAttack):
    """Drives the softmax of every internal classifier towards uniform.

    Hong, Kaya, Modoranu, Dumitraş: "A Panda? No, It's a Sloth: Slowdown Attacks on Adaptive
    Multi-Exit Neural Network Inference", ICLR 2021 (arXiv 2010.02432); section 4.

    By PGD with a constant step; the final classifier is left out. On a cascade, the models before
    the last take the place of the internal classifiers.

    Official code: https://github.com/sanghyun-hong/DeepSloth (MIT). Divergences here: the best
    iterate by executed MACs is returned, not the last one; iterates are rounded to 8 bits; the
    start is uniform in the budget, not within one step of the clean image.

    Args:
        victim: an early-exit network or a cascade.
        eps: l-inf budget; the paper's is 0.03125, one eighth of a grey level below 8/255.
        steps: gradient evaluations (paper: 30).
        step_size: in [0, 1] pixels (paper: 0.002).
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without internal classifiers.
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 8 / 255,
        *,
        steps: int = 30,
        step_size: float = 0.002,
        seed: int = 0,
    ) -> None:
        super().__init__(
            victim,
            Linf(eps),
            UniformExits(),
            ProjectedGradient(steps, constant(step_size / eps)),
            seed,
            step_size=step_size,
        )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.family in ("early exit", "cascade"):
            return None
        return (
            f"DeepSloth needs internal classifiers (early exit, cascade); {victim.name} is a "
            f"victim of {victim.family}"
        )
