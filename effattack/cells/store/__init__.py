"""Where finished cells lie: one Parquet file each, beside an append-only journal.

    store.json      version of the format
    KEY.parquet     rows of a finished cell, named by the hash of its specification
    KEY.sha256      of that file
    journal.jsonl   a line per cell that finished or failed: which, where, how long, why
    claims/KEY      locked by the process that works on a cell

A file is written under another name and renamed, so that no half of it is ever seen. A cell is
finished when both of its files are there. Rows are on the disk before they have their name. Their
digest is not waited for; it gets there within half a minute, and a cell without it is run again.
Nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from effattack.cells.spec import CellSpec
from effattack.cells.store.claims import claimed, owners
from effattack.cells.store.journal import Journal
from effattack.errors import UsageError
from effattack.results.files import replaced, replaced_in_time, writable, writing

__all__ = ["FORMAT", "Memory", "Shelf", "Store", "writable"]

FORMAT = 1
"""Of the folder; raised when an older effattack would misread it."""

DIGITS = 64
"""Of a SHA-256 in hexadecimal: a power cut may leave the file of one empty."""


class Shelf(Protocol):
    """What cells are performed against: a :class:`Store`, or :class:`Memory`."""

    def has(self, spec: CellSpec) -> bool: ...
    def read(self, spec: CellSpec) -> pd.DataFrame | None: ...
    def write(self, spec: CellSpec, rows: pd.DataFrame) -> None: ...
    def remove(self, spec: CellSpec) -> None: ...
    def record(self, spec: CellSpec, state: str, **facts: Any) -> None: ...
    def claim(self, spec: CellSpec) -> AbstractContextManager[bool]: ...


class Store:
    """Finished cells in a folder. Any number of processes may work on one.

    Raises:
        UsageError: if the folder cannot be written, or was written by a newer version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = writable(folder)
        self.journal = Journal(self.folder / "journal.jsonl")
        about = self.folder / "store.json"
        with writing(self.folder):
            (self.folder / "claims").mkdir(exist_ok=True)
            if not about.exists():
                replaced(about, json.dumps({"format": FORMAT}).encode())
        found = _format(about)
        if found != FORMAT:
            raise UsageError(
                f"{folder} was written by a newer effattack (format {found}, this one knows "
                f"{FORMAT}): update effattack, or give another folder"
            )

    def has(self, spec: CellSpec) -> bool:
        """Whether the cell is finished. Its files may be damaged: :meth:`read` tells."""
        path = self.path(spec)
        try:
            return path.exists() and path.with_suffix(".sha256").stat().st_size == DIGITS
        except OSError:
            return False

    def read(self, spec: CellSpec) -> pd.DataFrame | None:
        """The rows of a finished cell; None if it must be run (unfinished or damaged)."""
        path = self.path(spec)
        try:
            if path.with_suffix(".sha256").read_text("ascii") != _sha256(path.read_bytes()):
                return None
            return pd.read_parquet(path)
        except (OSError, ValueError):
            return None

    def write(self, spec: CellSpec, rows: pd.DataFrame) -> None:
        """Store a finished cell, all at once.

        Raises:
            StoreError: if the disk is full, or the folder cannot be written any more.
        """
        path = self.path(spec)
        with writing(self.folder):
            data = rows.to_parquet(index=False)
            replaced_in_time(path.with_suffix(".sha256"), _sha256(data).encode())
            replaced(path, data)

    def remove(self, spec: CellSpec) -> None:
        """Forget a finished cell."""
        with writing(self.folder):
            self.path(spec).with_suffix(".sha256").unlink(missing_ok=True)
            self.path(spec).unlink(missing_ok=True)

    def record(self, spec: CellSpec, state: str, **facts: Any) -> None:
        """Tell the journal that a cell was ``"done"``, or ``"failed"`` and why."""
        with writing(self.folder):
            self.journal.append(spec, state, **facts)

    def claim(self, spec: CellSpec) -> AbstractContextManager[bool]:
        """Hold a cell while inside; False if another live process holds it."""
        return claimed(self.folder / "claims" / spec.key)

    def running(self) -> dict[str, dict[str, Any]]:
        """Keys that live processes work on now, each with node, pid and since when."""
        return owners(self.folder / "claims")

    def path(self, spec: CellSpec) -> Path:
        """Of the rows of a cell."""
        return self.folder / f"{spec.key}.parquet"


class Memory:
    """Finished cells of this process alone."""

    def __init__(self) -> None:
        self._rows: dict[str, pd.DataFrame] = {}

    def has(self, spec: CellSpec) -> bool:
        return spec.key in self._rows

    def read(self, spec: CellSpec) -> pd.DataFrame | None:
        return self._rows.get(spec.key)

    def write(self, spec: CellSpec, rows: pd.DataFrame) -> None:
        self._rows[spec.key] = rows

    def remove(self, spec: CellSpec) -> None:
        del self._rows[spec.key]

    def record(self, spec: CellSpec, state: str, **facts: Any) -> None:
        """Nobody reads it again."""

    def claim(self, spec: CellSpec) -> AbstractContextManager[bool]:
        return nullcontext(True)


def _format(about: Path) -> int:
    """The version that a store names.

    Raises:
        UsageError: if it names none.
    """
    try:
        return int(json.loads(about.read_bytes())["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{about} is damaged: remove it, and --verify runs what is damaged beside it again"
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
