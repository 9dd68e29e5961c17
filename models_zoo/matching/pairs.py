"""Pairs of overlapping images with a known homography: an image, and the same seen from elsewhere.

A homography H (3, 3) takes x and y of a pixel in the first image to where it is in the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from effattack.domains import PartsBatch
from effattack.domains.pixels import to_grid

SHIFT = 0.12
"""How far a corner moves at most, as a share of width and height."""


def seen_from_elsewhere(images: Tensor, seed: int) -> tuple[PartsBatch, Tensor]:
    """Pairs of images (B, 3, H, W) and of their views, and the homographies (B, 3, 3), float64.

    The corners of each move at random, by at most ``SHIFT``; what was outside is mirrored.
    """
    generator = Generator().manual_seed(seed)
    _, _, height, width = images.shape
    corners = corners_of(height, width)
    reach = SHIFT * torch.tensor([width, height], dtype=torch.float64)
    moves = torch.rand(len(images), 4, 2, generator=generator, dtype=torch.float64) * 2 - 1
    found = torch.stack([homography(corners, corners + move * reach) for move in moves])
    views = torch.cat([warped(image, h) for image, h in zip(images.split(1), found, strict=True)])
    return PartsBatch({"first": images, "second": views}), found


def corners_of(height: int, width: int) -> Tensor:
    """(4, 2) float64: x and y of an image's corners."""
    right, bottom = width - 1.0, height - 1.0
    return torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]], dtype=torch.float64)


def homography(here: Tensor, there: Tensor) -> Tensor:
    """The one that takes four points (4, 2) to four others: (3, 3), its last number 1."""
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(here.tolist(), there.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    solved = torch.linalg.solve(torch.tensor(rows, dtype=torch.float64), there.flatten())
    return torch.cat([solved, solved.new_ones(1)]).view(3, 3)


def moved(points: Tensor, by: Tensor) -> Tensor:
    """Points (n, 2) through a homography."""
    found = torch.cat([points, torch.ones_like(points[:, :1])], dim=1) @ by.mT
    return found[:, :2] / found[:, 2:]


def warped(image: Tensor, by: Tensor) -> Tensor:
    """An image (1, 3, H, W) through a homography, of the same size, on the 8-bit grid."""
    height, width = image.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=2).view(-1, 2).double()
    source = moved(pixels, torch.linalg.inv(by))
    grid = source / torch.tensor([width - 1, height - 1]) * 2 - 1
    grid = grid.view(1, height, width, 2).to(image)
    return to_grid(grid_sample(image, grid, padding_mode="reflection", align_corners=True))


def corner_error(found: Tensor | None, by: Tensor, size: Sequence[int]) -> float:
    """How far a homography that was found puts the corners from where they are: a mean, in pixels.

    Infinite where none was found.
    """
    if found is None:
        return float("inf")
    height, width = size
    corners = corners_of(height, width)
    return float((moved(corners, found) - moved(corners, by)).norm(dim=1).mean())
