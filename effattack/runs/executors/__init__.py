"""How cells are run: in this process, on local workers, or on a Ray cluster.

All three take cells and a store, and give back what became of each; rows go through the store.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch

import effattack
from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf
from effattack.errors import UsageError


class Executor(Protocol):
    """Runs cells. Used as a context: what it started ends with it.

    Attributes:
        timeout: seconds after which a cell, or the planning before, is given up; None: never.
    """

    timeout: float | None

    def __enter__(self) -> Executor: ...
    def __exit__(self, *error: object) -> None: ...

    def check(self, device: str, timed: bool) -> None:
        """Refuse what it cannot do, before anything is planned.

        Raises:
            UsageError: for a device that is not there, or a timing that would share one.
        """

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        """Each cell once, side by side, in any order.

        Raises:
            StoreError: if the store cannot be written any more.
        """

    def alone(self) -> AbstractContextManager[Executor]:
        """One that runs one cell at a time, on a whole device: for timing."""

    def place(self, device: str) -> str:
        """Name of the device that :meth:`alone` runs on."""


def surroundings() -> dict[str, str]:
    """Environment variables of processes that run cells: where modules are, and one thread.

    effattack itself comes last, for one that runs from a folder it is not installed from.
    """
    paths = [path or os.getcwd() for path in sys.path]
    home = str(Path(effattack.__file__).parents[1])
    paths += [home] * (home not in paths)
    return {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def check_local(device: str) -> None:
    """Refuse a device that this machine has not.

    Raises:
        UsageError: for CUDA where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "device cuda: torch sees no CUDA device here (effattack doctor says why); use cpu"
        )
