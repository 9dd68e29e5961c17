"""Writing files so that each is there whole or not at all, and saying why it cannot be done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from effattack.errors import StoreError, UsageError


def writable(folder: Path) -> Path:
    """The folder, made if it was missing, as an absolute path.

    Raises:
        UsageError: if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror}): give another folder with --out"
        ) from error
    return folder.absolute()


def regular(path: Path) -> Path:
    """The path, unless reading it could wait for ever.

    Raises:
        UsageError: for a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file: give the path of one that lies on the disk")
    return path


def replaceable(path: Path) -> Path:
    """The path, unless it is a folder: no file can take its place.

    Raises:
        UsageError: if it is one.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path} (a folder is there): move it, or give another --out")
    return path


def replaced(path: Path, data: bytes) -> None:
    """Write a file under another name, have it reach the disk, then rename it."""
    with _draft(path) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replaced_in_time(path: Path, data: bytes) -> None:
    """The same without waiting for the disk: a power cut soon after may leave an empty file."""
    with _draft(path) as file:
        file.write(data)


@contextmanager
def _draft(path: Path) -> Iterator[BinaryIO]:
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("wb") as file:
            yield file
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say what an error of the disk means for a sweep.

    Raises:
        StoreError: where it is full or read-only.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder} any more ({error.strerror}): finished cells are safe; make "
            "room or make it writable, and the same command resumes"
        ) from error
