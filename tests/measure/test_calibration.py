"""Calibration under a clock that counts operators: the real extra work, without real time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toys import LinearSaver, grey_images

from effattack.errors import UsageError
from effattack.measure.calibration import (
    ABBA,
    SEQUENTIAL,
    calibrate,
    power_table,
    smallest_detectable,
    time_sequential,
)
from effattack.measure.load import competing


class OperatorClock:
    """A call takes a second per operator of torch that it runs, and as long as it is told more."""

    name = "operators"

    def __init__(self, disturbance: Callable[[int], float] = lambda call: 0.0) -> None:
        self.disturbance, self.calls = disturbance, 0

    def time(self, function: Callable[[], object]) -> float:
        class Count(TorchDispatchMode):
            operators = 0

            def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                self.operators += 1
                return func(*args, **(kwargs or {}))

        self.calls += 1
        with Count() as counted:
            function()
        return counted.operators + self.disturbance(self.calls)


class Long(LinearSaver):
    """A toy whose forward runs many operators, so that a share of them is a whole number."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            images = images.abs()
        return super().forward(images)


def run(clock: OperatorClock, **settings: object) -> pd.DataFrame:
    settings = {"slowdowns": [0.0, 0.1], "trials": 1, "seconds": 1e-9, **settings}
    return calibrate(Long(), grey_images(6), clock, **settings)


def test_the_extra_work_is_the_share_that_was_asked_for() -> None:
    trials = run(OperatorClock(), slowdowns=[0.0, 0.1, 0.5])
    measured = trials.groupby("slowdown").ratio.median()
    assert measured.to_dict() == pytest.approx({0.0: 1.0, 0.1: 1.1, 0.5: 1.5}, abs=0.006)
    assert trials.found.tolist() == [bool(slowdown) for slowdown in trials.slowdown]


def test_every_trial_of_both_orders_is_a_row_and_is_told() -> None:
    told = []
    trials = run(OperatorClock(), trials=2, finished=told.append)
    assert len(trials) == len(told) == 2 * 2 * 2
    assert trials.order.tolist() == [ABBA, SEQUENTIAL] * 4
    assert trials.trial.tolist() == [0] * 4 + [1] * 4
    assert not trials.duplicated(["slowdown", "order", "trial"]).any()


def test_drift_deceives_sequential_timing_only() -> None:
    trials = run(OperatorClock(lambda call: 0.05 * call), slowdowns=[0.0])
    alarms = trials.groupby("order").found.all()
    assert alarms.to_dict() == {ABBA: False, SEQUENTIAL: True}


def test_sequential_timing_is_one_arm_after_the_other() -> None:
    seen: list[str] = []
    pairs = [(lambda k=k: seen.append(f"a{k}"), lambda k=k: seen.append(f"b{k}")) for k in "01"]
    seconds = time_sequential(OperatorClock(lambda call: call), pairs)
    assert seen == ["a0", "a1", "a0", "a1", "b0", "b1", "b0", "b1"]
    assert seconds.tolist() == [[2, 6], [3, 7]]


def trials(found: dict[float, list[bool]]) -> pd.DataFrame:
    rows = [(s, ABBA, 1.0, 1 + s, hit) for s, hits in found.items() for hit in hits]
    return pd.DataFrame(rows, columns=["slowdown", "order", "seconds", "ratio", "found"])


def test_the_power_table_counts_with_exact_intervals() -> None:
    (row,) = power_table(trials({0.0: [True] * 10 + [False] * 190}))
    assert (row.trials, row.found, row.ratio, row.spread) == (200, 10, 1, 0)
    assert row.share == pytest.approx((0.05, 0.0242, 0.0900), abs=1e-4)


@pytest.mark.parametrize(
    ("found", "smallest"),
    [
        ({0.05: [True] * 18 + [False] * 2, 0.1: [True] * 20, 0.2: [True] * 20}, 0.1),
        ({0.05: [True] * 19 + [False], 0.1: [True] * 20}, 0.05),
        ({0.0: [True] * 20, 0.1: [False] * 20}, None),
        ({0.05: [True] * 20, 0.1: [False] * 20, 0.2: [True] * 20}, 0.2),
    ],
)
def test_the_smallest_detectable_slowdown(found: dict, smallest: float | None) -> None:
    assert smallest_detectable(power_table(trials(found))) == smallest


@pytest.mark.parametrize(
    "settings",
    [{"trials": 0}, {"seconds": 0.0}, {"slowdowns": []}, {"slowdowns": [-0.1]}],
)
def test_what_calibrates_nothing_is_refused(settings: dict) -> None:
    with pytest.raises(UsageError):
        run(OperatorClock(), **settings)
    with pytest.raises(UsageError, match="at least 6 images"):
        calibrate(Long(), grey_images(5), OperatorClock())


def children() -> set[str]:
    command = ["ps", "-o", "pid=", "--ppid", str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ps:
        return set(ps.communicate()[0].split()) - {str(ps.pid)}


def test_the_load_is_there_and_is_killed_also_after_an_error() -> None:
    before = children()

    def interrupted() -> None:
        with competing(2):
            assert len(children() - before) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert children() == before
    with pytest.raises(UsageError), competing(-1):
        pass


def test_the_load_ends_when_its_parent_is_killed() -> None:
    code = (
        "import os, signal, subprocess\n"
        "from effattack.measure.load import competing\n"
        "with competing(1):\n"
        "    print(subprocess.run(['ps', '-o', 'pid=', '--ppid', str(os.getpid())],\n"
        "          capture_output=True, text=True).stdout.split()[0], flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(done.stdout)
    for _ in range(100):
        if subprocess.run(["ps", "-p", str(pid)], capture_output=True).returncode:
            return
        time.sleep(0.05)
    os.kill(pid, 9)
    pytest.fail("the busy process outlived its parent")
