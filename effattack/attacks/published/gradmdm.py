"""GradMDM: GradAuto with norms that tell gates near their threshold from hopeless ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal
from effattack.attacks.searches.merging import MergedAttack, MergedPull
from effattack.attacks.searches.penalised import Penalised, Pull
from effattack.victim import Trace


@dataclass(frozen=True)
class PowerLosses(MergedPull):
    """- ‖1 - max(g, 1/2)‖_p is kept, ‖min(g, 1/2)‖_q is raised; ``weight`` times merged.

    Args:
        weight: of the merged gradient.
        p, q: of the two norms.
        warm_up: steps at first with p = q = 1.
    """

    attack: ClassVar[str] = "GradMDM"
    weight: float
    p: float
    q: float
    warm_up: int

    def wants(self, shares: Tensor, step: float) -> tuple[Tensor, Tensor]:
        p, q = (1.0, 1.0) if step < self.warm_up else (self.p, self.q)
        return -power_norm(1 - shares.clamp_min(0.5), p), power_norm(shares.clamp_max(0.5), q)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return self.weight * super().__call__(trace, goal)

    def direction(self, trace: Trace, images: Tensor, goal: Goal, step: int) -> Tensor:
        return self.weight * super().direction(trace, images, goal, step)


def power_norm(values: Tensor, p: float) -> Tensor:
    """(Σ v^p)^(1/p) over (B, units) of non-negative values, p < 1 included; safe at 0.

    Powers are taken of the share in the largest value: v^50 itself underflows.
    """
    values = values.clamp_min(torch.finfo(values.dtype).eps)
    largest = values.detach().amax(1, keepdim=True)
    return largest[:, 0] * (values / largest).pow(p).sum(1).pow(1 / p)


class GradMDM(MergedAttack):
    """Merges gradients by direction, as GradAuto does, and by magnitude, by power losses.

    Pan et al.: "GradMDM: Adversarial Attack on Dynamic Networks", TPAMI 2023 (arXiv 2304.06724);
    there on SkipNet. Minimises ‖1 - max(g, 1/2)‖_p, which keeps open gates open, and
    - ‖min(g, 1/2)‖_q, which opens closed ones, over the gate values g; Adam descends along
    1.5e5 · ∇neg + γ ∇‖x' - x‖².

    The paper sets no budget: neither does the attack, unless one is given.

    Official code: https://github.com/lingengfoo/GradMDM (no licence), for SkipNet alone.
    Divergences: it computes the gradient that keeps gates open and never uses it; here the two are
    merged, as in the paper. The gate path of its own in its first steps is left out, p = q = 1
    there is kept. Its pixels are normalised (divided by about 0.23); here they are in [0, 1], where
    the same γ weighs a distance less. For the rest, see
    :class:`effattack.attacks.published.gradauto.GradAuto`.

    It is an attack by small changes: γ = 100 stops it early where gates hardly move. On
    ``digits_skipnet`` (σ of all gates within 0.48 and 0.53), 24 images in the pixel box: attack
    success 0.43 at a mean Euclidean norm of 1.8; γ = 10, 0.76 at 3.4; γ = 1, 1.00 at 6.4. Noise
    over the whole box has 0.46, at 27.

    Args:
        victim: with sigmoid gates: layer skipping, AdaViT.
        eps: l-inf budget in [0, 1] pixels; None: the pixel box alone, as in the paper.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations (paper: 100).
        rate: learning rate of Adam (that of GradAuto).
        gate_weight: of the merged gradient (paper: 1.5e5).
        p, q: of the norms (paper: 0.35 and 3.5 on gates trained with supervision alone, 50 and 3.5
            on gates trained by reinforcement).
        warm_up: steps at first with p = q = 1 (paper: 10).
        distance_weight: γ (paper: 100).
        seed: of the place of a patch; nothing else is drawn.

    Raises:
        NotApplicable: for a victim without sigmoid gates.
    """

    steps: int = 100
    rate: float = 0.01
    gate_weight: float = 1.5e5
    p: float = 0.35
    q: float = 3.5
    warm_up: int = 10
    distance_weight: float = 100.0

    def composed(self) -> tuple[Pull, Penalised]:
        losses = PowerLosses(self.gate_weight, self.p, self.q, self.warm_up)
        return losses, Penalised(self.steps, self.rate, self.distance_weight)
