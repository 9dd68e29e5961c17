"""Which images a victim is checked on, and which of them broke a rule."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.images import to_grid

DECLARE_COUPLED = "declare batch_coupled=True if the mechanism is coupled by definition"


def beside_noise(images: Tensor) -> Tensor:
    """(B, ...) images on the grid -> (2 B, ...): beside each, one that is half it and half noise.

    Noise opens gates that natural images leave shut, and tells equal images apart.
    """
    noise = torch.rand(images.shape, generator=Generator().manual_seed(0)).to(images)
    return torch.cat([images, to_grid((images + noise) / 2)])


def first_of(broken: Tensor) -> int:
    """Index of the first image with anything broken, of (B,) or (B, ...) bool."""
    return int(per_image(broken).any(1).nonzero()[0])


def per_image(values: Tensor) -> Tensor:
    """(B,) or (B, ...) -> (B, n)."""
    return values.reshape(len(values), -1)
