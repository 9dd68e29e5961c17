"""DeepSloth: make every internal classifier as unsure as it can be."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.attacks.base import GradientAttack
from effattack.attacks.objectives import Objective, UniformExits
from effattack.attacks.searches.projected import ProjectedGradient, constant, cosine
from effattack.attacks.searches.training import Steepest, Training
from effattack.attacks.universal import UniversalAttack
from effattack.errors import UsageError
from effattack.threats import ArrayThreat, Linf, Threat
from effattack.threats.balls import Ball
from effattack.victim import Victim

_PAPER = {"linf": (30, 0.002), "l2": (550, 1.0), "l1": (250, 0.5)}
"""Steps, and the size of the first one."""


class FromOneStep(ProjectedGradient):
    """Projected gradient in l-inf that starts uniformly within one step of the clean image."""

    def first(self, clean: Tensor, threat: ArrayThreat, generator: Generator) -> Tensor:
        assert isinstance(threat, Linf)
        noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype) * 2 - 1
        step = self.schedule(0) * threat.radius
        return threat.project(clean + step * noise.to(clean.device), clean)


class DeepSloth(GradientAttack):
    """Drives the softmax of every internal classifier towards uniform.

    Hong, Kaya, Modoranu, Dumitraş: "A Panda? No, It's a Sloth: Slowdown Attacks on Adaptive
    Multi-Exit Neural Network Inference", ICLR 2021 (arXiv 2010.02432); section 4.

    By PGD, the step constant in l-inf and l1 and falling along a cosine in l2; the final classifier
    is left out. On a cascade, the models before the last take the place of the internal
    classifiers. The start is that of the official code: in l-inf uniform within one step of the
    clean image; in l2 and l1 a random direction, as long as the ball is wide.

    Official code: https://github.com/sanghyun-hong/DeepSloth (MIT). Divergences here: the best
    iterate by executed MACs is returned, not the last one; iterates are rounded to 8 bits, and the
    start is clipped to [0, 1]; the cross-entropy is of log p, where the official code has
    log(p + 1e-9), which pulls less at classes of next to no probability; the l2 ball is fixed,
    where the official code shrinks it every 50 steps; the start in l2 and l1 is uniform in the
    ball, nearly all of which lies at its surface.

    Args:
        victim: an early-exit network or a cascade.
        eps: l-inf budget; the paper's is 0.03125, one eighth of a grey level below 8/255.
        threat: an l2 or l1 ball in place of ``eps`` (paper: l1:8 on CIFAR-10, l1:16 on
            Tiny ImageNet).
        steps: gradient evaluations (default: the paper's 30 in l-inf, 550 in l2, 250 in l1).
        step_size: for values in [0, 1], scaled to the range of others (default: the paper's
            0.002 in l-inf, 1 at first in l2, 0.5 in l1).
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without internal classifiers.
        UsageError: for a threat that is no ball.
    """

    steps: int | None = None
    step_size: float | None = None

    def composed(self) -> tuple[Objective, ProjectedGradient]:
        ball = _ball(self.threat)
        steps, size = _PAPER[ball.norm]
        first = (size if self.step_size is None else self.step_size) * ball.span / ball.radius
        schedule = cosine(first, first / 100) if ball.norm == "l2" else constant(first)
        search = FromOneStep if ball.norm == "linf" else ProjectedGradient
        return UniformExits(), search(steps if self.steps is None else self.steps, schedule)

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return _no_classifiers(cls.__name__, victim)


class UniversalDeepSloth(UniversalAttack):
    """``DeepSloth``'s objective, for one perturbation of all images or one per class.

    Fitted beforehand. The same paper's universal and class-universal attacks: 20 steps of 0.005 on
    one batch of images, in l-inf, from a random point of the ball. Its authors report that a patch
    does not work.

    Divergences: the state with most executed MACs is kept, not the last one; iterates are rounded
    to 8 bits and images clipped to [0, 1], where the official code does not clip while it crafts;
    there are more steps where the images do not fit in one batch; in l2 and l1, for which the
    official code has steps of its own, a step takes the same share of the budget; the loss is that
    of ``DeepSloth``.

    Args:
        victim: an early-exit network or a cascade.
        eps: l-inf budget; the paper's is 0.03125, one eighth of a grey level below 8/255.
        threat: an l2 or l1 ball in place of ``eps``.
        epochs: passes over the images that it is fitted on (paper: 20 steps on one batch).
        batch: images of one step.
        step_share: size of a step as a share of the budget (paper: 0.005 of 0.03125).
        per_class: one perturbation per class, chosen by the label.
        seed: of the start and the order of the batches.

    Raises:
        NotApplicable: for a victim without internal classifiers.
        UsageError: for a threat that is no ball.
    """

    epochs: int = 20
    batch: int = 128
    step_share: float = 0.16
    per_class: bool = False

    def composed(self) -> tuple[Objective, Training]:
        _ball(self.threat)
        training = Training(self.epochs, self.batch, Steepest(constant(self.step_share)))
        return UniformExits(), training

    def first(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """A random point of the ball, around grey, where the range cuts nothing off."""
        grey = torch.full(shape, (self.threat.domain.low + self.threat.domain.high) / 2)
        return self.threat.start(grey, generator) - grey

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return _no_classifiers(cls.__name__, victim)


def _ball(threat: Threat) -> Ball:
    if not isinstance(threat, Ball):
        raise UsageError(f"DeepSloth works in {', '.join(_PAPER)}, not in {threat}")
    return threat


def _no_classifiers(attack: str, victim: Victim) -> str | None:
    if victim.family in ("early exit", "cascade"):
        return None
    return (
        f"{attack} needs internal classifiers (early exit, cascade); {victim.name} is a victim of "
        f"{victim.family}"
    )
