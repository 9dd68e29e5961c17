"""What takes too long in this process is given up."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from math import inf, nan

import pytest
from faulty import TOY

from effattack.errors import MeasurementError, UsageError
from effattack.runs.deadline import check_timeout, within


def test_what_hangs_is_given_up_even_where_it_takes_no_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("effattack.runs.deadline.AGAIN", 0.01)
    before, notices = signal.getsignal(signal.SIGALRM), []

    @within(0.01, "it")
    def deaf() -> None:
        while len(notices) < 3:
            try:
                time.sleep(3600)
            except BaseException as notice:
                notices.append(notice)

    with pytest.raises(MeasurementError, match=r"it took longer than the timeout of 0.01 s"):
        deaf()
    assert len(notices) == 3
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_what_is_quick_enough_is_not() -> None:
    for seconds in (None, 3600):
        with within(seconds, "it"):
            pass
        with pytest.raises(KeyError), within(seconds, "it"):
            raise KeyError


def test_planning_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faulty.data", lambda: time.sleep(3600))
    with pytest.raises(MeasurementError, match=r"planning .* took longer than the timeout of 0.05"):
        replace(TOY, data="faulty:data").plan(timeout=0.05)


@pytest.mark.parametrize("seconds", [0, -1, nan, inf])
def test_what_is_no_time(seconds: float) -> None:
    with pytest.raises(UsageError, match=r"timeout = .*: it must be positive"):
        check_timeout(seconds)
