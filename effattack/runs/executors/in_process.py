"""Cells one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from effattack.cells.performing import Outcome, Watch, perform, silent
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf
from effattack.measure.environment import device_name
from effattack.runs.executors import check_local


class InProcess:
    """The simplest executor: it starts nothing.

    Args:
        watch: told of every step of an attack.
    """

    timeout: float | None = None

    def __init__(self, watch: Watch = silent) -> None:
        self.watch = watch

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self, device: str, timed: bool) -> None:
        check_local(device)

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        return (perform(cell, shelf, self.watch) for cell in cells)

    def alone(self) -> InProcess:
        return self

    def place(self, device: str) -> str:
        return device_name(device)
