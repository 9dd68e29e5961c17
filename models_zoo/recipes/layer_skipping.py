"""Layer skipping."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.recipes.common import (
    accuracy,
    cross_entropy,
    describe,
    fit,
    straight_through,
)

GATE_SHARE = 0.6
"""Of the images, to compute each gated block for."""
SHARE_WEIGHT = 2.0
"""Of the squared distance from that share, summed over the gates."""


def train_skipnet() -> None:
    """The dense residual network first; then blocks and gates together, as SkipNet is trained.

    In the second phase decisions are hard, with the gradient of σ(z). In place of SkipNet's one
    price on all computed blocks, which on digits ended in gates that answer every image alike,
    each gate has a target share of the images, as in ConvNet-AIG (Veit and Belongie, ECCV 2018).
    """
    torch.manual_seed(0)
    victim = embedded.digits_skipnet(trained=False)
    dense = nn.Sequential(victim.stem, *victim.blocks, victim.head)
    fit(dense, cross_entropy(dense), epochs=20, rate=5e-3)
    reference = accuracy(dense, "test")

    answers: list[Tensor] = []
    for gate in victim.gates.values():
        gate.register_forward_hook(lambda gate, given, out: answers.append(out[0]))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        answers.clear()
        logits, _ = victim.relaxed(images)
        chances = torch.cat(answers, dim=1).sigmoid()
        shares = straight_through(chances, victim.policy.threshold).mean(0)
        return F.cross_entropy(logits, labels) + SHARE_WEIGHT * (shares - GATE_SHARE).square().sum()

    fit(victim, loss, epochs=20, rate=3e-3)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    describe(embedded.digits_skipnet(), recipe=victim.name, dense_accuracy=reference)


RECIPES: dict[str, Callable[[], None]] = {"digits_skipnet": train_skipnet}
