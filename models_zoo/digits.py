"""scikit-learn's handwritten digits as small colour images: the embedded data set.

1797 images of 8 x 8 pixels, enlarged to (3, 32, 32) and put on the 8-bit grid; split once, with a
fixed permutation, into training, held-out (thresholds, calibration) and test images.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import InterpolationMode, rotate

from effattack.domains.pixels import to_grid

SHAPE = (3, 32, 32)
SMALL = (1, 8, 8)
CLASSES = 10
TURN = 45.0
"""Degrees, against the clock."""
_SPLITS = {"train": (0, 1197), "heldout": (1197, 1497), "test": (1497, 1797)}


@cache
def _as_scanned() -> tuple[Tensor, Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [0, 1], labels, and the order that they are split in."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, *SMALL) / 16
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return small, torch.tensor(labels), order


@cache
def _all() -> tuple[Tensor, Tensor]:
    small, labels, order = _as_scanned()
    images = interpolate(small, size=SHAPE[1:], mode="bicubic", align_corners=False)
    images = to_grid(images.clamp(0, 1)).expand(-1, SHAPE[0], -1, -1)
    return images[order].contiguous(), labels[order]


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) in [0, 1] and labels (B,) of one split: train, heldout or test."""
    first, last = _SPLITS[split]
    images, labels = _all()
    return images[first:last].clone(), labels[first:last].clone()


def turned_digits(split: str) -> tuple[Tensor, Tensor]:
    """The same images, turned by 45 degrees, on the 8-bit grid, and labels (B,): a shifted set."""
    images, labels = digits(split)
    return to_grid(rotate(images, TURN, InterpolationMode.BILINEAR)), labels


def small_digits(split: str) -> tuple[Tensor, Tensor]:
    """The same images (B, 1, 8, 8) as they were scanned, on the 8-bit grid, and labels (B,)."""
    small, labels, order = _as_scanned()
    rows = order[slice(*_SPLITS[split])]
    return to_grid(small[rows]), labels[rows]


def scored_small_images() -> tuple[Tensor, Tensor]:
    """The 300 small test images, for victims that are small enough to be solved."""
    return small_digits("test")


def scored_images() -> tuple[Tensor, Tensor]:
    """The 300 test images that embedded victims are scored on."""
    return digits("test")
