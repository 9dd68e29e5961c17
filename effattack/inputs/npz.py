"""Arrays of an ``.npz`` file, left on the disk where they are stored uncompressed."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from effattack.errors import UsageError
from effattack.streams import on_one_line

INPUTS = ("images", "series", "inputs")
"""Names under which the inputs may stand."""


def open_npz(path: Path) -> tuple[Any, Any]:
    """Inputs, by one of the names in :data:`INPUTS`, and ``labels``.

    Those of ``np.savez`` are mapped into memory, not read; ``np.savez_compressed`` cannot be
    mapped: it is read whole. Objects are refused, and so is an array that its member of the archive
    cannot hold, before anything is allocated.

    Raises:
        UsageError: if the file cannot be read or lacks one of the two, or has inputs by two names.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for a writer
            raise ValueError("it is no file")
        with ZipFile(path) as archive:
            return array_in(path, archive, name_of_inputs(archive)), array_in(
                path, archive, "labels"
            )
    except Exception as error:  # decoders of broken files raise anything
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UsageError(
            f"cannot read {on_one_line(path)} ({on_one_line(reason)}): it must be an .npz with "
            "arrays 'images' (B, C, H, W), 'series' (B, channels, length) or 'inputs', and "
            "'labels' (B,)"
        ) from error


def name_of_inputs(archive: ZipFile) -> str:
    """The name under which the inputs stand.

    Raises:
        ValueError: if there are several.
    """
    found = [name for name in INPUTS if f"{name}.npy" in archive.namelist()]
    if len(found) > 1:
        raise ValueError(f"it holds {' and '.join(found)}")
    return found[0] if found else INPUTS[0]


def array_in(path: Path, archive: ZipFile, name: str) -> Any:
    """One array of an archive by its name; mapped into memory where it is not compressed.

    Raises:
        ValueError: for one that holds objects, or that the file cannot hold.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != ZIP_STORED:
        with archive.open(member) as file:
            *_, size = _header(file, member, name)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > memory:
            raise ValueError(
                f"{name} take {size:.3g} bytes, this machine has {memory:.3g}: np.savez, which "
                "does not compress, is read in part"
            )
        with archive.open(member) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    if member.flag_bits & 1:
        raise ValueError(f"{name} are encrypted")
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)  # a zip's local header: 30 bytes, name, extra field
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        shape, order, dtype, _ = _header(file, member, name)
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _header(
    file: IO[bytes], member: ZipInfo, name: str
) -> tuple[tuple[int, ...], Literal["F", "C"], np.dtype, int]:
    """Shape, order, type and bytes of an array, all of which its member has."""
    start = file.tell()
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} have a header of version {version}")
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{name} hold Python objects")
    if not shape or min(shape) < 0:
        raise ValueError(f"{name} have the shape {shape}")
    size, there = math.prod(shape) * dtype.itemsize, member.file_size - (file.tell() - start)
    if size != there:
        raise ValueError(f"{name} of shape {shape} take {size} bytes, the file holds {there}")
    return shape, "F" if fortran else "C", dtype, size
