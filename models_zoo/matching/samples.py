"""Pairs that need no download: crops of the two photographs that come with scikit-learn."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from effattack.domains import PartsBatch
from effattack.domains.pixels import to_grid
from effattack.models_zoo.matching.pairs import seen_from_elsewhere


def crops(count: int, size: tuple[int, int] = (192, 256), seed: int = 0) -> PartsBatch:
    """Pairs of a crop and its view from elsewhere, of (height, width).

    Crops are of 0.5 to 1 of a photograph's sides, by turns of either photograph.
    """
    from sklearn.datasets import load_sample_images

    photographs = [torch.tensor(image).permute(2, 0, 1) for image in load_sample_images().images]
    generator = Generator().manual_seed(seed)
    images = [_crop(photographs[k % len(photographs)], size, generator) for k in range(count)]
    pairs, _ = seen_from_elsewhere(torch.cat(images), seed)
    return pairs


def _crop(photograph: Tensor, size: tuple[int, int], generator: Generator) -> Tensor:
    share, down, across = torch.rand(3, generator=generator).tolist()
    height, width = (int(side * (0.5 + share / 2)) for side in photograph.shape[1:])
    top = int(down * (photograph.shape[1] - height))
    left = int(across * (photograph.shape[2] - width))
    part = photograph[None, :, top : top + height, left : left + width].float() / 255
    return to_grid(interpolate(part, size, mode="bilinear", antialias=True).clamp(0, 1))
