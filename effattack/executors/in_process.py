"""Cells one after the other, in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from effattack.execution import Outcome, perform
from effattack.executors import check_local
from effattack.measure.environment import device_name
from effattack.plans import Cell
from effattack.store import Shelf


class InProcess:
    """The simplest executor: it starts nothing."""

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self, device: str, timed: bool) -> None:
        check_local(device)

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        return (perform(cell, shelf) for cell in cells)

    def alone(self) -> InProcess:
        return self

    def place(self, device: str) -> str:
        return device_name(device)
