"""What tells an attacked input from its clean one, byte by byte; the clean one stands nowhere.

Of 8-bit pixels a byte is the difference in grey levels, modulo 256. What is longer than its clean
input, such as a prompt with a suffix, is told by itself beyond the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np


def changes(inputs: Sequence[bytes], clean: Sequence[bytes]) -> list[bytes]:
    """Of each input, as its domain packs it, what differs from the clean one."""
    return _bytewise(np.subtract, inputs, clean)


def changed(changes: Sequence[bytes], clean: Sequence[bytes]) -> list[bytes]:
    """The inverse of :func:`changes`: the attacked inputs."""
    return _bytewise(np.add, changes, clean)


def compressed(rows: Sequence[bytes]) -> bytes:
    """All rows in one piece; their sizes must be kept elsewhere."""
    return zlib.compress(b"".join(rows), 9)


def decompressed(data: bytes, sizes: Sequence[int]) -> tuple[bytes, ...]:
    """The inverse of :func:`compressed`.

    Raises:
        ValueError: unless the data hold rows of these sizes, and nothing else.
    """
    total, reader = sum(sizes), zlib.decompressobj()
    try:
        whole = reader.decompress(data, total + 1)
    except zlib.error as error:
        raise ValueError(f"its changes cannot be unpacked: {error}") from error
    if len(whole) != total or not reader.eof or reader.unused_data:
        raise ValueError(f"its changes are not the {total} bytes that it tells")
    ends = np.cumsum([0, *sizes]).tolist()
    return tuple(whole[first:last] for first, last in pairwise(ends))


def _bytewise(combine: Callable, rows: Sequence[bytes], clean: Sequence[bytes]) -> list[bytes]:
    found = []
    for row, base in zip(rows, clean, strict=True):
        padded = base[: len(row)].ljust(len(row), b"\0")
        found.append(combine(*(np.frombuffer(each, np.uint8) for each in (row, padded))).tobytes())
    return found
