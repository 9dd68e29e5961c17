"""Where MTCNN looks: levels of the pyramid, cells of P-Net, boxes, and crops of them.

Equations of ``detect_face`` in facenet-pytorch 2.6.0, on tensors throughout. Boxes are rows left,
top, right, bottom in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from effattack.models_zoo.detection.mtcnn_nms import OVER_UNION

WINDOW, STRIDE = 12, 2
"""Pixels that a cell of P-Net sees, and from one cell to the next."""


class Level(NamedTuple):
    """One size of the image pyramid."""

    scale: float
    height: int
    width: int
    rows: int
    """Of P-Net's cells."""
    columns: int


def pyramid(height: int, width: int, smallest: float, factor: float) -> list[Level]:
    """The levels at which faces of ``smallest`` pixels and more fill a window of P-Net."""
    scale, least, levels = WINDOW / smallest, min(height, width) * WINDOW / smallest, []
    while least >= WINDOW:
        size = (int(height * scale + 1), int(width * scale + 1))
        levels.append(Level(scale, *size, *(-(-(side - 2) // 2) - 4 for side in size)))
        scale, least = scale * factor, least * factor
    return levels


def cells(level: Level) -> Tensor:
    """(rows · columns, 4) float32: the box of each cell, in whole pixels of the image."""
    down, across = torch.meshgrid(
        torch.arange(level.rows), torch.arange(level.columns), indexing="ij"
    )
    corner = STRIDE * torch.stack([across, down], 2).view(-1, 2).float()
    return torch.cat(
        [((corner + 1) / level.scale).floor(), ((corner + WINDOW) / level.scale).floor()], 1
    )


def moved(boxes: Tensor, shares: Tensor, extra: float = 0) -> Tensor:
    """Boxes (n, 4), each side moved by a share of their width or height (plus ``extra``)."""
    sizes = boxes[:, 2:] - boxes[:, :2] + extra
    return boxes + shares * sizes.repeat(1, 2)


def squared(boxes: Tensor) -> Tensor:
    """The squares of their longer side around the same centres."""
    sizes = boxes[:, 2:] - boxes[:, :2]
    side = sizes.amax(1, keepdim=True)
    corner = boxes[:, :2] + sizes * 0.5 - side * 0.5
    return torch.cat([corner, corner + side], 1)


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """(n, 4) whole numbers: the pixels [left, right) x [top, bottom) of the image that a box has;
    right is no more than left where there are none."""
    whole = boxes.detach().trunc()
    corner = whole[:, :2].clamp(min=1) - 1
    end = torch.minimum(whole[:, 2:], whole.new_tensor([width, height]))
    limit = 2 * max(height, width)
    return torch.cat([corner, end], 1).clamp(-limit, limit).long()


def sums(images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 1, W + 1): of all pixels above and to the left, in float64."""
    return pad(images.double(), (1, 0, 1, 0)).cumsum(3).cumsum(2)


def crops(table: Tensor, which: Tensor, pixels: Tensor, side: int) -> Tensor:
    """Parts of images, each averaged over areas to (side, side): (n, C, side, side) float64.

    All at once, whatever their sizes. Of 8-bit images, the sums are exact.

    Args:
        table: the :func:`sums` of a batch.
        which: (n,) of the batch.
        pixels: (n, 4), as :func:`inside` gives them.
        side: of the crops.
    """
    channels, height, width = table.shape[1:]
    columns = table.transpose(0, 1).reshape(channels, -1)
    left, across = _windows(pixels[:, 0], pixels[:, 2], side)
    top, down = _windows(pixels[:, 1], pixels[:, 3], side)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        place = (which[:, None] * height + y)[:, :, None] * width + x[:, None, :]
        return columns.index_select(1, place.flatten()).view(channels, len(which), side, side)

    upper = corner(top, left + across) - corner(top, left)
    lower = corner(top + down, left + across) - corner(top + down, left)
    return (lower - upper).transpose(0, 1) / (down[:, None, :, None] * across[:, None, None, :])


def _windows(first: Tensor, end: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """(n, side): where the pixels of each average begin, and how many they are."""
    steps, length = torch.arange(side, device=first.device), (end - first)[:, None]
    begin = steps * length // side
    return first[:, None] + begin, -(-(steps + 1) * length // side) - begin


def most_apart(levels: Sequence[Level], limit: float) -> int:
    """A bound on the cells that one pass of NMS can leave, on all levels together.

    Of each block of 2 x 2 cells, no more stay than there are cells in it that do not overlap.
    """
    return sum(_most_apart(level, limit) for level in levels)


def _most_apart(level: Level, limit: float) -> int:
    boxes = cells(level).view(level.rows, level.columns, 4)
    even = pad(
        boxes.permute(2, 0, 1), (0, level.columns % 2, 0, level.rows % 2), value=torch.nan
    ).permute(1, 2, 0)
    blocks = even.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).transpose(1, 2).reshape(-1, 4, 4)
    there = ~blocks[:, :, 0].isnan()
    clash = OVER_UNION.of_all(blocks, blocks) > limit
    most = torch.zeros(len(blocks), dtype=torch.long)
    for count in range(1, 5):
        for chosen in combinations(range(4), count):
            fits = there[:, chosen].all(1)
            for one, other in combinations(chosen, 2):
                fits &= ~clash[:, one, other]
            most[fits] = count
    return int(most.sum())
