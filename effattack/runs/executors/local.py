"""What runs cells where nobody names a place: all cores where it is worth it, or this process."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from effattack.cells.performing import Outcome, Watch, silent
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf
from effattack.measure.environment import device_name, usable_cores
from effattack.runs.executors import check_local
from effattack.runs.executors.in_process import InProcess
from effattack.runs.executors.workers import Workers

WORTH = 5e11
"""MACs, about a quarter of a minute of one core: a smaller run ends before workers are ready."""


class Local:
    """A worker per core, where there is work and memory for two; else this process.

    Rows are the same in both. Timings run in this process, alone: the workers have ended by then.

    Args:
        watch: told of every step of an attack in this process.
    """

    timeout: float | None = None

    def __init__(self, watch: Watch = silent) -> None:
        self._here = InProcess(watch)
        self._workers: Workers | None = None

    def __enter__(self) -> Local:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def check(self, device: str, timed: bool) -> None:
        check_local(device)

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        cells = list(cells)
        if self._workers is None and _worth(cells):
            count = min(usable_cores(), _room())
            self._workers = Workers(count) if count > 1 else None
        return (self._workers or self._here).run(cells, shelf)

    def alone(self) -> InProcess:
        self._end()
        return self._here

    def place(self, device: str) -> str:
        return device_name(device)

    def _end(self) -> None:
        if self._workers is not None:
            self._workers.__exit__()
            self._workers = None


def _worth(cells: list[Cell]) -> bool:
    on_cpu = all(cell.spec.device == "cpu" for cell in cells)
    return on_cpu and sum(cell.macs for cell in cells) > WORTH


def _room() -> int:
    """For how many workers there is memory; each may take twice what this process, which has
    loaded the same victims, took at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(free_memory() // (2 * peak))


def free_memory(
    meminfo: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")
) -> float:
    """Bytes that processes may still take, by the kernel and the limit of the container."""
    free = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2]
    with suppress(OSError):
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="utf-8").splitlines())
        free = [1024.0 * int(lines["MemAvailable"].split()[0])]
    with suppress(OSError, ValueError):  # no such limit
        most, used = (
            int((group / f"memory.{key}").read_text(encoding="utf-8")) for key in ("max", "current")
        )
        free.append(most - used)
    return min(free)
