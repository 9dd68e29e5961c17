"""What recipes train with: the loop, optimisers, and how images are moved about."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.hardening.fitting import Augment, Loss, Optimiser, adamw, fit

__all__ = [
    "Augment",
    "Loss",
    "Optimiser",
    "adamw",
    "as_they_are",
    "fit",
    "mirrored",
    "sgd",
    "shifted",
]


def sgd(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Nesterov momentum 0.9 and weight decay 5e-4: better than AdamW on plain convolutions."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def as_they_are(inputs: Tensor, generator: Generator) -> Tensor:
    """Nothing is moved about."""
    return inputs


def shifted(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Every image moved by up to ``pixels`` in both directions, edges repeated."""
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    size = images.shape[-1]
    moves = torch.randint(0, 2 * pixels + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)]
    )


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Half of the images, left and right exchanged."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
