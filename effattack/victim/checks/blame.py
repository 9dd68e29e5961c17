"""Which images a victim is checked on, and which of them broke a rule."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.domains.pixels import to_grid

DECLARE_COUPLED = "declare batch_coupled=True if the mechanism is coupled by definition"


def beside_noise(images: Tensor, count: int) -> Tensor:
    """(B, ...) images on the grid -> (count, ...): behind them, the same again, half noise.

    Noise opens gates that natural images leave shut, and a batch is made of one image.
    """
    again = images[torch.arange(count - len(images)) % len(images)]
    noise = torch.rand(again.shape, generator=Generator().manual_seed(0)).to(again)
    return torch.cat([images, to_grid((again + noise) / 2)])


def first_of(broken: Tensor) -> int:
    """Index of the first image with anything broken, of (B,) or (B, ...) bool."""
    return int(per_image(broken).any(1).nonzero()[0])


def per_image(values: Tensor) -> Tensor:
    """(B,) or (B, ...) -> (B, n)."""
    return values.reshape(len(values), -1)
