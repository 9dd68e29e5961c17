"""DeepSloth: make every internal classifier as unsure as it can be."""

from __future__ import annotations

from effattack.attacks.base import GradientAttack, budget
from effattack.attacks.search import ProjectedGradient, constant, cosine
from effattack.errors import UsageError
from effattack.objectives import UniformExits
from effattack.threats import Threat
from effattack.victim import Victim

_PAPER = {"linf": (30, 0.002), "l2": (550, 1.0), "l1": (250, 0.5)}
"""Steps, and the size of the first one."""


class DeepSloth(GradientAttack):
    """Drives the softmax of every internal classifier towards uniform.

    Hong, Kaya, Modoranu, Dumitraş: "A Panda? No, It's a Sloth: Slowdown Attacks on Adaptive
    Multi-Exit Neural Network Inference", ICLR 2021 (arXiv 2010.02432); section 4.

    By PGD, the step constant in l-inf and l1 and falling along a cosine in l2; the final classifier
    is left out. On a cascade, the models before the last take the place of the internal
    classifiers.

    Official code: https://github.com/sanghyun-hong/DeepSloth (MIT). Divergences here: the best
    iterate by executed MACs is returned, not the last one; iterates are rounded to 8 bits; the
    start is uniform in the budget, not within one step of the clean image; the l2 ball is fixed,
    where the official code shrinks it every 50 steps.

    Args:
        victim: an early-exit network or a cascade.
        eps: l-inf budget; the paper's is 0.03125, one eighth of a grey level below 8/255.
        threat: an l2 or l1 ball in place of ``eps`` (paper: l1:8 on CIFAR-10, l1:16 on
            Tiny ImageNet).
        steps: gradient evaluations (default: the paper's 30 in l-inf, 550 in l2, 250 in l1).
        step_size: in the unit of the threat (default: the paper's 0.002 in l-inf, 1 at first in
            l2, 0.5 in l1).
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without internal classifiers.
        UsageError: for a threat that is no ball.
    """

    def __init__(
        self,
        victim: Victim,
        eps: float = 8 / 255,
        *,
        threat: Threat | str | None = None,
        steps: int | None = None,
        step_size: float | None = None,
        seed: int = 0,
    ) -> None:
        ball = budget(eps, threat)
        if ball.name not in _PAPER:
            raise UsageError(f"DeepSloth works in {', '.join(_PAPER)}, not in {ball}")
        usual = _PAPER[ball.name]
        steps = usual[0] if steps is None else steps
        size = (usual[1] if step_size is None else step_size) / ball.eps
        schedule = cosine(size, size / 100) if ball.name == "l2" else constant(size)
        search = ProjectedGradient(steps, schedule)
        super().__init__(victim, ball, UniformExits(), search, seed)

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.family in ("early exit", "cascade"):
            return None
        return (
            f"DeepSloth needs internal classifiers (early exit, cascade); {victim.name} is a "
            f"victim of {victim.family}"
        )
