"""Arrays of an ``.npz`` file, left on the disk where they are stored uncompressed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from effattack.errors import UsageError


def open_npz(path: Path) -> tuple[Any, Any]:
    """``images`` and ``labels``; those of ``np.savez`` are mapped into memory, not read.

    ``np.savez_compressed`` cannot be mapped: it is read whole. Objects are refused.

    Raises:
        UsageError: if the file cannot be read or lacks one of the two.
    """
    try:
        with ZipFile(path) as archive:
            return _array(path, archive, "images"), _array(path, archive, "labels")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, struct.error) as error:
        raise UsageError(
            f"cannot read {path} ({error}): it must be an .npz with arrays 'images' (B, C, H, W) "
            "and 'labels' (B,)"
        ) from error


def _array(path: Path, archive: ZipFile, name: str) -> Any:
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != ZIP_STORED:
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # a zip's local header: 30 bytes, name, extra field
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        order: Literal["F", "C"] = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)
