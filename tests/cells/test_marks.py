"""Where the time of a cell goes, told by the work itself."""

from __future__ import annotations

import pytest

from effattack.cells import marks


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is: the first number."""
    now = [0.0]
    monkeypatch.setattr(marks.time, "perf_counter", lambda: now[0])
    return now


def test_seconds_of_one_part_add_up(clock: list[float]) -> None:
    with marks.marking() as spent:
        for seconds in (2.0, 3.0):
            with marks.marked("audit"):
                clock[0] += seconds
            clock[0] += 100
    assert spent == {"audit": 5.0}


def test_a_part_that_fails_took_its_time(clock: list[float]) -> None:
    def fail() -> None:
        with marks.marked("storage"):
            clock[0] += 4
            raise ValueError("full")

    with marks.marking() as spent, pytest.raises(ValueError, match="full"):
        fail()
    assert spent == {"storage": 4.0}


def test_each_cell_has_its_own_and_nobody_need_collect(clock: list[float]) -> None:
    with marks.marked("attack"):
        clock[0] += 1
    with marks.marking() as outer:
        with marks.marking() as inner, marks.marked("attack"):
            clock[0] += 1
        with marks.marked("audit"):
            clock[0] += 2
    assert (inner, outer) == ({"attack": 1.0}, {"audit": 2.0})
