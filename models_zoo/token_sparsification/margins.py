"""Margins of sigmoid gates that stay usable where the sigmoid saturates.

σ(z) - t is the margin that papers optimise. In float32 its slope underflows to zero beyond
|z| ≈ 17, and gradient attacks go blind exactly on the most confident decisions. The margins here
are taken on log-odds and bounded by a rational function, whose slope falls with the square of the
distance instead of exponentially.
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor


def log_odds(probability: float) -> float:
    """log(p / (1 - p)) for p in (0, 1)."""
    return log(probability / (1 - probability))


def bounded_margin(excess: Tensor, scale: Tensor | float, active: Tensor) -> Tensor:
    """excess / (scale + |excess|), in [-1, 1], with the sign of the decision.

    The decision itself is taken on probabilities. Where rounding makes its sign differ from that
    of the log-odds, the value (not the slope) is moved to the decision's side of zero.

    Args:
        excess: log-odds beyond the threshold; positive is "computed".
        scale: log-odds over which the margin saturates.
        active: bool, the decision.
    """
    margin = excess / (scale + excess.abs())
    least = torch.finfo(margin.dtype).eps
    moved = torch.where(active, least, -least).to(margin.dtype) + (margin - margin.detach())
    return torch.where((margin > 0) == active, margin, moved)
