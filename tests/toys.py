"""Victims small enough to know everything about, and images for them."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from effattack.budgets import LEVELS
from effattack.errors import UsageError
from effattack.victim import Gate, Trace, Victim, load_victim

SHAPE = (1, 4, 4)

embedded = cache(load_victim)
"""A registered victim by name, loaded once and shared by all tests: leave it as it was."""


def embedded_or_skip(name: str) -> Victim:
    """The same, or a skipped test where its extra is missing or does not fit this torch."""
    try:
        return embedded(name)
    except UsageError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))


def import_or_skip(module: str) -> Any:
    """A module of an extra, or a skipped test where it is missing or does not fit this torch."""
    return pytest.importorskip(module, exc_type=ImportError)


class LinearSaver(Victim):
    """A linear saver with two classes; where its logits differ by less than ``doubt``, a base runs.

    The difference g(x) = w·x + b is linear, so the worst case is known: the gate of an image opens
    within an l-inf budget ε, pixel box aside, if and only if ε > (|g(x)| - doubt) / ‖w‖₁.
    """

    def __init__(self, doubt: float = 1.0, seed: int = 0) -> None:
        super().__init__(
            name="toy",
            family="cascade",
            input_shape=SHAPE,
            num_classes=2,
            max_macs=32 + 128 + 16,
            dense_macs=128 + 16,
        )
        self.doubt = doubt
        self.saver = nn.Linear(16, 2)
        self.base = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2))
        generator = Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.saver.weight.mul_(5)
            self.saver.bias.copy_(-0.5 * self.saver.weight.sum(1))  # grey: undecided
        self.eval()

    def margin(self, logits: Tensor) -> Tensor:
        """(B, 2) -> (B,): the policy."""
        excess = self.doubt - (logits[:, 0] - logits[:, 1]).abs()
        return excess / (1 + excess.abs())

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logits = self.saver(x)
        onward = (self.margin(logits) > 0).nonzero()[:, 0]
        return logits.index_copy(0, onward, self.base(x[onward])) if len(onward) else logits

    def trace(self, images: Tensor) -> Trace:
        x = images.flatten(1)
        stages = torch.stack([self.saver(x), self.base(x)], dim=1)
        margin = self.margin(stages[:, 0])
        onward = margin > 0
        reached = torch.ones_like(onward)
        return Trace(
            logits=torch.where(onward[:, None], stages[:, 1], stages[:, 0]),
            gates=(Gate("saver", margin, onward, reached, cost=144.0, pushed=True),),
            macs=32 + 144 * onward.double(),
            stage_logits=stages,
        )

    def missing(self, images: Tensor) -> Tensor:
        """(B,) |g(x)| - doubt: how far g must move to open the gate; negative where it is open."""
        logits = self.saver(images.flatten(1))
        return ((logits[:, 0] - logits[:, 1]).abs() - self.doubt).detach()

    def reach(self, levels: int) -> float:
        """How far g can be moved when every pixel changes by ``levels`` grey levels."""
        weight = self.saver.weight[0] - self.saver.weight[1]
        return levels / LEVELS * weight.abs().sum().item()


def grey_images(count: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Tensor:
    """(count, *shape): noise on the 8-bit grid, at least 76 levels away from black and white."""
    levels = torch.randint(77, 179, (count, *shape), generator=Generator().manual_seed(seed))
    return levels / LEVELS


def noise_images(count: int, seed: int, shape: tuple[int, ...]) -> Tensor:
    """(count, *shape): noise on the 8-bit grid, black and white included."""
    levels = torch.randint(0, 256, (count, *shape), generator=Generator().manual_seed(seed))
    return levels / LEVELS
