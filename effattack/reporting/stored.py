"""Stored inputs: what ``pack`` of each kind of domain wrote, read without torch."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Description = Mapping[str, Any]
"""What ``meta`` says of a domain: its kind, its shape, and what its kind adds."""


def pixels(raw: bytes, domain: Description) -> NDArray[np.uint8] | None:
    """(C, H, W) levels; None where the bytes are of another size."""
    return _array(raw, domain["shape"], "u1")


def series(raw: bytes, domain: Description) -> NDArray[np.float64] | None:
    """(channels, length) values; None where the bytes are of another size."""
    if (step := domain.get("step")) is None:
        values = _array(raw, domain["shape"], "<f4")
        return None if values is None else values.astype(float)
    levels = _array(raw, domain["shape"], "<i4")
    return None if levels is None else levels * float(step) + float(domain["low"])


def tokens(raw: bytes, domain: Description) -> NDArray[Any] | None:
    """(length,) ids, or their texts where the domain tells those; None where the bytes are none."""
    if len(raw) % 4:
        return None
    ids = np.frombuffer(raw, dtype="<i4")
    if (pieces := domain.get("pieces")) is None:
        return ids
    inside = ((ids >= 0) & (ids < len(pieces))).all()
    return np.array(pieces, dtype=object)[ids] if inside else None


def members(text: object, answer: Description) -> NDArray[np.float64] | None:
    """(n, columns) of an answer that is a set, as its task writes it; None of other answers."""
    if not (columns := answer.get("columns")) or not isinstance(text, str):
        return None
    rows = [row.split() for row in text.split(";") if row.strip()]
    try:
        return np.array(rows, dtype=float).reshape(len(rows), len(columns))
    except ValueError:
        return None


def parts(raw: bytes, count: int) -> list[bytes] | None:
    """The bytes of each part; None where they do not add up."""
    head = 8 * count
    if len(raw) < head:
        return None
    ends = [*accumulate(struct.unpack(f"<{count}q", raw[:head]), initial=head)]
    if ends[-1] != len(raw):
        return None
    return [raw[start:stop] for start, stop in pairwise(ends)]


def _array(raw: bytes, shape: tuple[int | None, ...], dtype: str) -> NDArray[Any] | None:
    """Free sizes come first, as 32-bit integers, and then the values."""
    head = 4 * list(shape).count(None)
    if len(raw) < head:
        return None
    free = iter(struct.unpack(f"<{head // 4}i", raw[:head]))
    sizes = [next(free) if size is None else int(size) for size in shape]
    if len(raw) - head != prod(sizes) * np.dtype(dtype).itemsize:
        return None
    return np.frombuffer(raw[head:], dtype=dtype).reshape(sizes)
