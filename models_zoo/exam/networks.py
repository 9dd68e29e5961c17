"""The plain networks under the exam's victims: linear layers and ReLUs on 64 pixels."""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from effattack.models_zoo.digits import CLASSES, SMALL
from effattack.models_zoo.layer_skipping.score_gate import ScoreMarginGate

PIXELS = prod(SMALL)


def rectified(inputs: int, outputs: int) -> nn.Sequential:
    """One linear layer and ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU())


def classifier(*widths: int) -> nn.Sequential:
    """A multi-layer perceptron on images with hidden layers of these widths."""
    hidden = [rectified(*pair) for pair in pairwise((PIXELS, *widths))]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], CLASSES))


def exit_stages() -> tuple[list[nn.Module], list[nn.Module]]:
    """Three hidden layers, each a stage, and their linear classifiers: 3,360 weights."""
    widths = (16, 32, 32)
    stages: list[nn.Module] = [rectified(*pair) for pair in pairwise((PIXELS, *widths))]
    stages[0] = nn.Sequential(nn.Flatten(), *stages[0])
    return stages, [nn.Linear(width, CLASSES) for width in widths]


def cascaded() -> list[nn.Module]:
    """Three perceptrons of growing width: 4,528 weights."""
    return [classifier(10), classifier(20), classifier(24, 16)]


class Shortcut(nn.Module):
    """A body beside the identity."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


def skipping(
    thresholds: list[float],
) -> tuple[nn.Module, list[nn.Module], list[nn.Module | None], nn.Module]:
    """Stem, three gated residual blocks, their gates and the head of a SkipNet: 3,968 weights."""
    width, inner = 16, 24
    stem = nn.Sequential(nn.Flatten(), *rectified(PIXELS, width))
    body = [nn.Sequential(*rectified(width, inner), nn.Linear(inner, width)) for _ in thresholds]
    gates: list[nn.Module | None] = [
        ScoreMarginGate(nn.Linear(width, CLASSES), threshold) for threshold in thresholds
    ]
    return stem, [Shortcut(each) for each in body], gates, nn.Linear(width, CLASSES)
