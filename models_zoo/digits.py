"""scikit-learn's handwritten digits as small colour images: the embedded data set.

1797 images of 8 x 8 pixels, enlarged to (3, 32, 32) and put on the 8-bit grid; split once, with a
fixed permutation, into training, held-out (thresholds, calibration) and test images.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from effattack.domains.pixels import to_grid

SHAPE = (3, 32, 32)
CLASSES = 10
_SPLITS = {"train": (0, 1197), "heldout": (1197, 1497), "test": (1497, 1797)}


@cache
def _all() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    small = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
    images = interpolate(small, size=SHAPE[1:], mode="bicubic", align_corners=False)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = to_grid(images.clamp(0, 1)).expand(-1, SHAPE[0], -1, -1)
    return images[order].contiguous(), torch.tensor(labels)[order]


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32) in [0, 1] and labels (B,) of one split: train, heldout or test."""
    first, last = _SPLITS[split]
    images, labels = _all()
    return images[first:last].clone(), labels[first:last].clone()


def scored_images() -> tuple[Tensor, Tensor]:
    """The 300 test images that embedded victims are scored on."""
    return digits("test")
