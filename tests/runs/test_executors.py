"""Where cells run: which worker is given which, and when there are workers at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from faulty import TOY

from effattack.cells.by_name import Named
from effattack.cells.plan import Cell
from effattack.cells.spec import CellSpec, Work
from effattack.cells.store import Store
from effattack.inputs.source import Source
from effattack.runs.executors import local
from effattack.runs.executors.local import Local, free_memory
from effattack.runs.executors.process import Worker
from effattack.runs.executors.workers import Waiting

SMALL = replace(TOY, samples=6, slice=3)


def cells(victim: str, count: int, macs: float) -> list[Cell]:
    named = Named(victim, (), (), (), Source("", ()), None, "cpu")
    spec = CellSpec(Work.ATTACK, victim=victim)
    return [Cell(replace(spec, first=i), named, "compute", "linf", 0, macs) for i in range(count)]


def test_a_worker_keeps_its_victim_and_then_helps_with_the_dearest(tmp_path: Path) -> None:
    workers = [Worker(Store(tmp_path), None) for _ in range(2)]
    one, other = workers
    waiting = Waiting([*cells("cheap", 2, 1.0), *cells("dear", 3, 9.0)], workers)
    given = [waiting.next_for(worker) for worker in (one, other, one, other, other)]
    assert [cell.spec.victim for cell in given] == ["dear", "cheap", "dear", "cheap", "dear"]
    assert len({(cell.spec.victim, cell.spec.first) for cell in given}) == 5


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], None]:
    """Two cores, so much memory, and so many MACs that are worth a worker."""

    def give(memory: float, worth: float) -> None:
        monkeypatch.setattr(local, "usable_cores", lambda: 2)
        monkeypatch.setattr(local, "free_memory", lambda: memory)
        monkeypatch.setattr(local, "WORTH", worth)

    return give


@pytest.mark.parametrize(("memory", "worth"), [(2**40, 1e300), (1.0, 0.0)])
def test_little_work_or_memory_stays_in_this_process(
    tmp_path: Path, several: Callable[[float, float], None], memory: float, worth: float
) -> None:
    several(memory, worth)
    SMALL.run(tmp_path, Local())
    assert {entry["pid"] for entry in Store(tmp_path / "cells").journal} == {os.getpid()}


@pytest.mark.slow
def test_all_cores_give_the_rows_of_one_and_timings_run_here(
    tmp_path: Path, several: Callable[[float, float], None]
) -> None:
    here = SMALL.run(tmp_path / "here").samples
    several(2**40, 0.0)
    timed = replace(SMALL, timed=2)
    found = timed.run(tmp_path / "cores", Local()).samples
    measured = [*(c for c in here if "seconds" in c), "clock", "environment", "batch_size"]
    measured += ["node", "device"]
    pd.testing.assert_frame_equal(
        found.drop(columns=measured), here.drop(columns=measured), check_exact=True
    )
    by_work: dict[str, set[int]] = {}
    for entry in Store(tmp_path / "cores" / "cells").journal:
        by_work.setdefault(entry["spec"]["work"], set()).add(entry["pid"])
    assert by_work["timing"] == {os.getpid()}
    assert os.getpid() not in by_work["attack"]


def test_memory_is_what_the_kernel_and_the_container_leave(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000 kB\nMemAvailable:  3000 kB\n")
    assert free_memory(meminfo, tmp_path) == 3000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(meminfo, tmp_path) == 3000 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert free_memory(meminfo, tmp_path) == 4000
    assert free_memory(tmp_path / "none", tmp_path / "none") > 0
