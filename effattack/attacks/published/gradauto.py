"""GradAuto: open closed gates along a gradient that leaves open gates open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal
from effattack.attacks.searches.merging import MergedAttack, MergedPull
from effattack.attacks.searches.penalised import Penalised, Pull
from effattack.attacks.searches.projected import input_gradient
from effattack.threats.arrays import unit
from effattack.victim import Trace


@dataclass(frozen=True)
class SplitGates(MergedPull):
    """Σ max(g - 1/2, 0) is kept, - Σ max(1/2 - g, 0) is raised; merged, then of unit length.

    The direction is N times that unit vector, N the values of an image, minus the gradient of
    ``logits_weight`` · ‖logits - clean logits‖².
    """

    attack: ClassVar[str] = "GradAuto"
    logits_weight: float

    def wants(self, shares: Tensor, step: float) -> tuple[Tensor, Tensor]:
        return (shares - 0.5).clamp_min(0).sum(1), -(0.5 - shares).clamp_min(0).sum(1)

    def direction(self, trace: Trace, images: Tensor, goal: Goal, step: int) -> Tensor:
        noticed = torch.zeros_like(images)
        if self.logits_weight:
            away = (trace.logits - goal.logits).square().sum(1)
            noticed = input_gradient(away, images, trace, retain_graph=True)
        opening = unit(super().direction(trace, images, goal, step))
        return images[0].numel() * opening - self.logits_weight * noticed


class GradAuto(MergedAttack):
    """Splits gates at 1/2 and opens the closed ones along a merged, normalised gradient.

    Pan et al.: "GradAuto: Energy-Oriented Attack on Dynamic Neural Networks", ECCV 2022; there on
    SkipNet. Per image, g⁺ = - Σ max(g - 1/2, 0) and g⁻ = Σ max(1/2 - g, 0) over the gate values g;
    what of ∇g⁻ opposes ∇g⁺ is taken away, the rest normalised, and Adam descends along
    K · N · ∇̂g⁻ + ∇‖x' - x‖², K = 1, N = 3 · 224 · 224 the number of pixel values.

    The paper sets no budget: neither does the attack, unless one is given.

    Official code: https://github.com/JianhongPan/GradAuto (MIT), for SkipNet alone. Divergences:
    it passes every image through a tanh of 0.8 times its values, which distorts it before the first
    step; here pixels are clipped. N is that of the victim's images. The learning rate is in [0, 1]
    pixels, not in normalised ones. Gates whose threshold is not 1/2 are moved until it is; gates
    that were not reached count as neither open nor closed. The best iterate by executed MACs is
    returned; iterates are rounded to 8 bits. g is flat where its sigmoid saturates: a published
    weakness, kept (the margins of ``ILFO`` and ``Slowdown`` are not).

    Args:
        victim: with sigmoid gates: layer skipping, AdaViT.
        eps: l-inf budget in [0, 1] pixels; None: the pixel box alone, as in the paper.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations (paper: 300).
        rate: learning rate of Adam (paper: 0.01).
        logits_weight: of the squared change of the logits; 0: the prediction may change (paper: 1e5
            to preserve accuracy).
        seed: of the place of a patch; nothing else is drawn.

    Raises:
        NotApplicable: for a victim without sigmoid gates.
    """

    steps: int = 300
    rate: float = 0.01
    logits_weight: float = 0.0

    def composed(self) -> tuple[Pull, Penalised]:
        return SplitGates(self.logits_weight), Penalised(self.steps, self.rate, weight=1.0)
