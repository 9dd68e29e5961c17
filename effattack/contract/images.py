"""Which image broke a rule."""

from __future__ import annotations

from torch import Tensor

DECLARE_COUPLED = "declare batch_coupled=True if the mechanism is coupled by definition"


def first_of(broken: Tensor) -> int:
    """Index of the first image with anything broken, of (B,) or (B, ...) bool."""
    return int(per_image(broken).any(1).nonzero()[0])


def per_image(values: Tensor) -> Tensor:
    """(B,) or (B, ...) -> (B, n)."""
    return values.reshape(len(values), -1)
