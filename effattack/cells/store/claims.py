"""Which process works on which cell.

A claim is a kernel's lock on a small file that names its owner. It ends when its owner does,
however that happens, so that there is no stale claim to judge by its age.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from effattack.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows: evaluations in memory work there, stores do not
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold a claim while inside; False if another live process holds it.

    Raises:
        StoreError: where the file system has no locks, or cannot be written any more.
    """
    file = _locked(path)
    if file is None:
        yield False
        return
    try:
        owner = {"node": platform.node(), "pid": os.getpid(), "since": time.time()}
        with suppress(OSError):  # it is the lock that counts
            os.ftruncate(file, 0)
            os.write(file, json.dumps(owner).encode())
        yield True
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(file)


def owners(folder: Path) -> dict[str, dict[str, Any]]:
    """Name of each claim that is held -> its owner; what dead owners left is removed."""
    held = {}
    for path in folder.iterdir():
        with suppress(OSError, ValueError):
            told = json.loads(path.read_bytes() or b"{}")
            with claimed(path) as free:
                if not free:
                    held[path.name] = told
    return held


def _locked(path: Path) -> int | None:
    """A locked file descriptor; None if another has locked it."""
    if fcntl is None:
        raise StoreError("stores need the file locks of Unix: evaluate in memory, without out")
    while True:
        try:
            file = os.open(path, os.O_CREAT | os.O_RDWR)
        except OSError as error:
            raise StoreError(f"cannot claim {path} ({error.strerror}): make room there") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except OSError as error:
            os.close(file)
            raise StoreError(
                f"{path.parent} lies on a file system without locks ({error.strerror}): two "
                "processes could work on one cell; put the folder elsewhere, or mount it with locks"
            ) from error
        if _is_still(path, file):
            return file
        os.close(file)  # its owner finished and removed it in between


def _is_still(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
