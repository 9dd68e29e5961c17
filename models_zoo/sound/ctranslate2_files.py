"""Weights of CTranslate2's ``model.bin``, version 6, read without the library.

Little-endian. A version and the name of a specification with its revision; then every variable with
its name, shape, type and bytes; then names that stand for others.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effattack.errors import UsageError

VERSION = 6
TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_model(path: Path, specification: str) -> dict[str, Tensor]:
    """All variables by name, in their own types.

    Args:
        path: of the file.
        specification: whose model it must be.

    Raises:
        UsageError: for a file that cannot be read, another version or model, or int8 weights.
    """
    reader = _Reader(path.read_bytes())
    try:
        (version,), name = reader.numbers("I"), ""
        if version == VERSION:
            name = reader.text()
        if name != specification:
            raise UsageError(
                f"{path} holds {name or f'version {version} of something'}, not version {VERSION} "
                f"of {specification}: convert such a model with ct2-transformers-converter"
            )
        reader.numbers("I")
        (count,) = reader.numbers("I")
        found = dict(reader.variable() for _ in range(count))
        (count,) = reader.numbers("I")
        found |= {alias: found[reader.text()] for alias in (reader.text() for _ in range(count))}
    except (struct.error, UnicodeDecodeError, KeyError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} cannot be read ({error}): it is damaged, get it again") from error
    if any(name.endswith("weight_scale") for name in found):
        raise UsageError(
            f"{path} holds int8 weights: convert the model with --quantization float16"
        )
    return found


class _Reader:
    def __init__(self, held: bytes) -> None:
        self.held, self.place = held, 0

    def numbers(self, kinds: str) -> tuple[int, ...]:
        found = struct.unpack_from(f"<{kinds}", self.held, self.place)
        self.place += struct.calcsize(f"<{kinds}")
        return found

    def text(self) -> str:
        (size,) = self.numbers("H")
        found = self.held[self.place : self.place + size]
        self.place += size
        return found.rstrip(b"\0").decode()

    def variable(self) -> tuple[str, Tensor]:
        name, (rank,) = self.text(), self.numbers("B")
        shape = self.numbers("I" * rank)
        kind, size = self.numbers("BI")
        dtype = np.dtype(TYPES[kind])
        values = np.frombuffer(self.held, dtype, size // dtype.itemsize, self.place)
        self.place += size
        return name, torch.from_numpy(values.reshape(shape).copy())
