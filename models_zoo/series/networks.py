"""The plain networks under the embedded series victims."""

from __future__ import annotations

from torch import nn


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Convolution over 3 steps, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(),
    )


def pooled_head(width: int, classes: int) -> nn.Sequential:
    """Average pooling over the series, then one linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, classes))


def exit_stages(channels: int, classes: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Four convolutions, narrow enough that the first two are often unsure, and their heads."""
    widths = [(channels, 4, 1), (4, 8, 2), (8, 16, 2), (16, 32, 2)]
    stages: list[nn.Module] = [convolution(i, o, s) for i, o, s in widths]
    return stages, [pooled_head(o, classes) for _, o, _ in widths]
