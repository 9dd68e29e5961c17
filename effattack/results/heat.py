"""Where the candidates of a detector lie, as the stored frame keeps it; no torch is needed to read
it.

A grid over the image, and in each of its squares, how many boxes cover the middle: some kilobytes,
however many boxes there are.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FINEST = 40
"""Squares along the longer side of an image, at most."""


class Heat(NamedTuple):
    """The candidates of one image."""

    boxes: int
    """How many there are."""
    counts: NDArray[np.uint16]
    """(rows, columns): how many of them cover the middle of each square."""


def covered(boxes: NDArray[np.floating], size: tuple[int, int]) -> Heat:
    """Which squares of an image some boxes cover, of each at least the one that holds its middle.

    Args:
        boxes: (n, 4): left, top, right, bottom in pixels.
        size: height and width of the image, in pixels.
    """
    side = side_of(size)
    rows, columns = (int(np.ceil(length / side - 1e-9)) for length in size)
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    left, right = _span(boxes[:, 0], boxes[:, 2], side, columns)
    top, bottom = _span(boxes[:, 1], boxes[:, 3], side, rows)
    change = np.zeros((rows + 1, columns + 1), dtype=int)
    for down, across, sign in (
        (top, left, 1),
        (top, right, -1),
        (bottom, left, -1),
        (bottom, right, 1),
    ):
        np.add.at(change, (down, across), sign)
    counts = change.cumsum(0).cumsum(1)[:-1, :-1]
    return Heat(len(boxes), counts.clip(max=np.iinfo(np.uint16).max).astype(np.uint16))


def side_of(size: tuple[int, int]) -> float:
    """Pixels along the side of a square of an image of that height and width."""
    return max(1.0, max(size) / FINEST)


def _span(
    low: NDArray[np.floating], high: NDArray[np.floating], side: float, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of each box, the first square along one side that it covers, and the one behind the last."""
    first, last = (np.ceil(edge / side - 0.5) for edge in (low, high))
    middle = np.floor((low + high) / 2 / side)
    narrow = last <= first
    first, last = np.where(narrow, middle, first), np.where(narrow, middle + 1, last)
    first = first.clip(0, count - 1).astype(int)
    return first, last.clip(first + 1, count).astype(int)


def to_bytes(heat: Heat) -> bytes:
    """Boxes, rows and columns as 32-bit integers, then the counts, little-endian."""
    return struct.pack("<3i", heat.boxes, *heat.counts.shape) + heat.counts.astype("<u2").tobytes()


def from_bytes(raw: bytes) -> Heat:
    """The inverse of :func:`to_bytes`."""
    boxes, rows, columns = struct.unpack("<3i", raw[:12])
    return Heat(boxes, np.frombuffer(raw[12:], dtype="<u2").reshape(rows, columns))
