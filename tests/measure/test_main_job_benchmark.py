"""``benchmarks/main_job.py``: phases fill the clock, and parts a cell."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def main_job(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import main_job

    return main_job


def cell(work: str, attack: str, time: float, seconds: float, *parts: float) -> dict[str, object]:
    spec = {"work": work, "attack": attack, "first": 20, "last": 30}
    named = dict(zip(("storage", "audit", "attack"), parts, strict=False))
    return {"spec": spec, "time": time, "seconds": seconds, "parts": named}


JOURNAL = [
    cell("contract", "", 3.0, 1.0),
    cell("attack", "noise", 5.0, 2.0, 0.25, 1.0, 0.5),
    cell("attack", "foolbox.LinfPGD", 11.0, 8.0, 0.5, 1.0, 6.0),
    cell("attack", "foolbox.LinfPGD", 9.0, 8.0, 0.5, 3.0, 4.0),
    cell("timing", "noise", 12.0, 1.5, 0.5),
]


def test_phases_fill_the_clock(main_job: ModuleType) -> None:
    shown = main_job.by_clock(JOURNAL, started=1.0, over=12.5)
    assert shown.seconds.tolist() == ["2.0", "8.0", "1.0", "0.5", "11.5"]
    without = main_job.by_clock(JOURNAL[:-1], started=1.0, over=12.5)
    assert without.seconds.tolist() == ["2.0", "8.0", "1.5", "11.5"]


def test_parts_fill_their_cells(main_job: ModuleType) -> None:
    shown = main_job.by_work(JOURNAL).set_index("work")
    order = ["foolbox.LinfPGD", "noise", "all timings", "all contracts", "all"]
    assert shown.index.tolist() == order
    assert shown.loc[order[0]].tolist() == ["10.0", "4.0", "1.0", "1.0", "16.0", "50%", "1.25"]
    assert shown.loc["noise"].tolist() == ["0.5", "1.0", "0.2", "0.2", "2.0", "", "5"]
    assert shown.loc["all timings"].tolist() == ["0.0", "0.0", "0.5", "1.0", "1.5", "", ""]
    assert shown.loc["all", "all"] == "20.5"


@pytest.mark.slow
def test_a_run_tells_its_parts(main_job: ModuleType) -> None:
    options = ["--victim", "digits_cnn_early_exit", "--attack", "Slowdown(steps=2)"]
    journal, started, over = main_job.timed([*options, "--samples", "4"])
    assert started < min(entry["time"] for entry in journal) <= over
    attacked = [entry for entry in journal if entry["spec"]["attack"].startswith("Slowdown")]
    attack = next(entry for entry in attacked if entry["spec"]["work"] == "attack")
    assert set(attack["parts"]) == {"attack", "audit", "storage"}
    assert sum(attack["parts"].values()) <= attack["seconds"] + 0.002
