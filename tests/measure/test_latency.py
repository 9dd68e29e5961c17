"""The timing protocol under clocks that say what they are told: no real time is asserted on."""

from __future__ import annotations

import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from effattack.errors import MeasurementError, UsageError
from effattack.measure import clocks, environment, latency
from effattack.measure.guards import fitting
from effattack.measure.latency import quadruple, time_pairs, warm_up
from effattack.measure.statistics import Interval, median_ratio
from effattack.victim import Victim

CPU = torch.device("cpu")


class Recorder(Victim):
    """Remembers what it was called with, and how; image i of an arm is filled with one number."""

    def __init__(self) -> None:
        shape = (1, 1, 1)
        super().__init__(
            name="recorder",
            family="fake",
            input_shape=shape,
            num_classes=1,
            max_macs=1,
            dense_macs=1,
        )
        self.register_buffer("precision", torch.ones((), dtype=torch.float64))
        self.seen: list[float] = []
        self.modes: set[tuple[bool, bool, bool]] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images[0].item())
        inference = torch.is_inference_mode_enabled()
        self.modes.add((self.training, torch.is_grad_enabled(), inference))
        return images.flatten(1)


class FakeClock:
    """A call costs what its first pixel says, plus drift that grows with every call."""

    name = "fake"

    def __init__(self, victim: Recorder, drift: float = 0.0) -> None:
        self.victim, self.drift, self.calls = victim, drift, 0

    def time(self, function: clocks.Call) -> float:
        function()
        self.calls += 1
        return self.victim.seen[-1] + self.disturbance()

    def disturbance(self) -> float:
        return self.drift * self.calls


def images(*seconds: float) -> Tensor:
    return torch.tensor(seconds, dtype=torch.float64).reshape(-1, 1, 1, 1)


def ratio(rows: pd.DataFrame) -> Interval:
    return median_ratio(rows["seconds_attacked"], rows["seconds_clean"])


@given(
    clean=st.lists(st.floats(0.5, 2), min_size=1, max_size=8),
    effect=st.floats(0, 1),
    drift=st.floats(0, 1),
    repeats=st.integers(1, 4),
)
@settings(deadline=None)
def test_linear_drift_favours_each_arm_in_turn(
    clean: list[float], effect: float, drift: float, repeats: int
) -> None:
    victim = Recorder()
    arm = images(*clean)
    clock = FakeClock(victim, drift)
    rows = time_pairs(victim, arm, arm + effect, repeats=repeats, clocks=[clock])
    difference = (rows["seconds_attacked"] - rows["seconds_clean"]).to_numpy()
    assert difference[0::2] == pytest.approx(effect + drift, abs=1e-9)
    assert difference[1::2] == pytest.approx(effect - drift, abs=1e-9)


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0, 5), st.booleans())
def test_a_quadruple_gives_the_least_call_of_each_arm(
    a: float, b: float, drift: float, mirrored: bool
) -> None:
    victim = Recorder()
    calls = (partial(victim, images(a)), partial(victim, images(b)))
    clock = FakeClock(victim, drift)
    seconds = quadruple(clock, *calls, mirrored=mirrored)
    assert seconds == pytest.approx((a + (1 + mirrored) * drift, b + (2 - mirrored) * drift))
    assert victim.seen == ([b, a, a, b] if mirrored else [a, b, b, a])


def test_every_other_quadruple_is_mirrored() -> None:
    victim = Recorder()
    time_pairs(victim, images(1, 2), images(3, 4), repeats=2, clocks=[FakeClock(victim)])
    assert victim.seen[-16:] == [1, 3, 3, 1, 4, 2, 2, 4, 3, 1, 1, 3, 2, 4, 4, 2]


def test_a_slow_first_call_on_each_image_favours_no_arm() -> None:
    victim = Recorder()

    class ColdStart(FakeClock):
        def disturbance(self) -> float:
            return 0.5 if (self.calls - 20) % 4 == 1 else 0.0

    arm = images(*[1] * 20)
    assert ratio(time_pairs(victim, arm, arm, clocks=[ColdStart(victim)])) == (1, 1, 1)


def test_two_disturbed_passes_of_three_do_not_count() -> None:
    victim = Recorder()
    arm = images(*[1.0] * 10)

    class Burst(FakeClock):
        def disturbance(self) -> float:
            return 100.0 if 40 < self.calls <= 120 else 0.0

    rows = time_pairs(victim, arm, 2 * arm, clocks=[Burst(victim)])
    assert rows["seconds_clean"].tolist() == [1.0] * 10
    assert rows["seconds_attacked"].tolist() == [2.0] * 10


def test_one_row_per_image_and_clock() -> None:
    victim = Recorder()
    one, other = FakeClock(victim), FakeClock(victim)
    other.name = "other"
    rows = time_pairs(victim, images(1, 2, 3), images(2, 4, 6), clocks=[one, other])
    assert list(rows.columns) == [
        "batch_size",
        "image",
        "images",
        "clock",
        "seconds_clean",
        "seconds_attacked",
        "settled",
        "environment",
    ]
    assert rows["image"].tolist() == [0, 1, 2] * 2
    assert rows["clock"].tolist() == ["fake"] * 3 + ["other"] * 3
    assert rows["seconds_clean"].tolist() == [1, 2, 3] * 2
    assert rows["seconds_attacked"].tolist() == [2, 4, 6] * 2
    assert rows["settled"].all()
    recorded = json.loads(rows["environment"][0])
    assert {"device_name", "driver", "threads", "load_average", "clock_mhz"} < set(recorded)


def test_batches_are_reported_per_image() -> None:
    victim = Recorder()
    arm = images(*[6.0] * 5)
    rows = time_pairs(victim, arm, arm, batch_sizes=(1, 2), clocks=[FakeClock(victim)])
    assert rows["batch_size"].tolist() == [1] * 5 + [2] * 3
    assert rows["image"].tolist() == [0, 1, 2, 3, 4, 0, 2, 4]
    assert rows["images"].tolist() == [1] * 5 + [2, 2, 1]
    assert rows["seconds_clean"].tolist() == [6] * 5 + [3, 3, 6]


class Small(Recorder):
    """Has room for two images at a time."""

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def test_batches_that_do_not_fit_in_memory_are_halved_with_a_warning() -> None:
    victim = Small()
    arm = images(*[1.0] * 9)
    with pytest.warns(UserWarning, match="batches of 8 do not fit in memory on cpu.* of 2"):
        rows = time_pairs(victim, arm, arm, batch_sizes=(8,), clocks=[FakeClock(victim)])
    assert set(rows["batch_size"]) == {2}


def test_attacked_images_that_take_more_memory_are_found_out_before_the_clock_runs() -> None:
    class Growing(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            if images.sum() > 9:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(images)

    victim = Growing()
    clean, attacked = images(*[1.0] * 8), images(*[4.0] * 8)
    with pytest.warns(UserWarning, match="batches of 8 do not fit"):
        rows = time_pairs(victim, clean, attacked, batch_sizes=(8,), clocks=[FakeClock(victim)])
    assert set(rows["batch_size"]) == {2}


def test_one_image_that_does_not_fit_is_an_error() -> None:
    class Full(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with pytest.raises(MeasurementError, match="does not fit in memory with one image"):
        fitting(Full(), [images(1.0, 2.0, 3.0)], 2)


def test_a_victim_that_is_not_deterministic_is_refused() -> None:
    class Dropping(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + len(self.seen)

    victim = Dropping()
    with pytest.raises(MeasurementError, match="recorder is not deterministic: outputs of image 0"):
        time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim)])


def test_nothing_is_timed_in_an_xdist_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    monkeypatch.delenv("EFFATTACK_DEVICE_OWNED", raising=False)
    victim = Recorder()
    with pytest.raises(UsageError, match="EFFATTACK_DEVICE_OWNED=1"):
        time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim)])
    monkeypatch.setenv("EFFATTACK_DEVICE_OWNED", "1")
    assert len(time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim)])) == 1


def test_passes_go_on_until_the_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = Recorder()
    ticks = iter(range(100))
    monkeypatch.setattr(latency.time, "monotonic", lambda: next(ticks))
    pairs = [(partial(victim, images(1.0)), partial(victim, images(1.0)))]
    latency.time_abba(FakeClock(victim), pairs, repeats=2, seconds=5)
    assert len(victim.seen) == 4 * 6


def test_a_clock_too_coarse_to_move_measures_nothing() -> None:
    victim = Recorder()
    zero = images(*[0.0] * 6)
    rows = time_pairs(victim, zero, zero, clocks=[FakeClock(victim)])
    assert rows[["seconds_clean", "seconds_attacked"]].isna().all(axis=None)
    assert np.isnan(ratio(rows).value)


def test_warm_up_runs_everything_once_and_waits_for_the_median() -> None:
    victim = Recorder()
    pairs = [(partial(victim, images(k)), partial(victim, images(10 * k))) for k in (1.0, 2.0)]

    class Cooling(FakeClock):
        def disturbance(self) -> float:
            return 100 * 0.9**self.calls

    clock = Cooling(victim)
    assert warm_up(clock, pairs, window=10, tolerance=0.01, seconds=1e9)
    assert victim.seen[:4] == [1, 10, 2, 20]
    assert set(victim.seen[4:]) == {1, 10}
    assert 60 < clock.calls < 100


@pytest.mark.parametrize(
    ("bounds", "readings"),
    [({"at_most": 60, "seconds": 1e9}, 60), ({"seconds": 2999.0}, 24), ({"seconds": 1.0}, 20)],
)
def test_warm_up_gives_up_and_says_so(bounds: dict, readings: int) -> None:
    victim = Recorder()
    rising = FakeClock(victim, drift=10.0)
    pairs = [(partial(victim, images(0.0)), partial(victim, images(0.0)))]
    assert not warm_up(rising, pairs, **bounds)
    assert rising.calls == readings


def test_an_unsettled_warm_up_stands_in_the_rows() -> None:
    victim = Recorder()
    rows = time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim, drift=10.0)])
    assert not rows["settled"].any()


def test_the_deployed_path_runs_in_eval_and_inference_mode() -> None:
    victim = Recorder().train()
    time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim)])
    assert victim.modes == {(False, False, True)}
    assert victim.training


def test_a_victim_that_fails_leaves_its_mode_as_it_was() -> None:
    class Broken(Recorder):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("shapes do not match")

    victim = Broken().train()
    with pytest.raises(RuntimeError, match="shapes do not match"):
        time_pairs(victim, images(1.0), images(1.0))
    assert victim.training


def test_a_victim_that_refuses_inference_mode_is_run_without_gradients() -> None:
    class Saving(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.memory: Tensor | None = None

        def forward(self, images: Tensor) -> Tensor:
            if torch.is_inference_mode_enabled():
                raise RuntimeError("Inplace update to inference tensor")
            return super().forward(images)

    victim = Saving()
    with pytest.warns(UserWarning, match="recorder is measured under no_grad.*Inplace"):
        time_pairs(victim, images(1.0), images(1.0), clocks=[FakeClock(victim)])
    assert victim.modes == {(False, False, False)}


@pytest.mark.parametrize(
    ("clean", "attacked", "settings"),
    [
        (images(1, 2), images(1), {}),
        (images(), images(), {}),
        (images(1), images(1), {"batch_sizes": (0,)}),
        (images(1), images(1), {"batch_sizes": ()}),
        (images(1), images(1), {"repeats": 0}),
        (images(1), images(1), {"seconds": -1.0}),
    ],
)
def test_arms_that_do_not_pair_up_are_refused(
    clean: Tensor, attacked: Tensor, settings: dict
) -> None:
    with pytest.raises(UsageError):
        time_pairs(Recorder(), clean, attacked, **settings)


@pytest.mark.parametrize("clock", [clocks.WallClock(CPU), clocks.CpuTimeClock()])
def test_clocks_call_once_and_read_seconds(clock: clocks.Clock) -> None:
    calls: list[int] = []
    assert 0 <= clock.time(lambda: calls.append(1)) < 60
    assert calls == [1]


def test_the_wall_clock_waits_for_the_device_on_both_sides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: order.append("wait"))
    clocks.WallClock(torch.device("cuda")).time(lambda: order.append("call"))
    assert order == ["wait", "call", "wait"]


def test_cuda_events_enclose_the_call_and_are_read_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            order.append("event")

        def elapsed_time(self, end: Event) -> float:
            order.append("read")
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    clock = clocks.CudaEventClock(torch.device("cuda", 0))
    assert clock.time(lambda: order.append("call")) == 0.25
    assert order == ["wait", "event", "call", "event", "wait", "read"]


def test_wall_always_and_cuda_events_beside_it_on_cuda() -> None:
    assert [clock.name for clock in clocks.clocks_for(CPU)] == ["wall"]
    cuda = clocks.clocks_for(torch.device("cuda"))
    assert [clock.name for clock in cuda] == ["wall", "cuda_event"]


def test_clocks_by_name() -> None:
    assert [clocks.clock_named(name, "cpu").name for name in ("wall", "cpu_time")] == [
        "wall",
        "cpu_time",
    ]
    with pytest.raises(UsageError, match="reads CUDA devices, not cpu"):
        clocks.clock_named("cuda_event", "cpu")
    with pytest.raises(UsageError, match="did you mean wall"):
        clocks.clock_named("walls", "cpu")


def test_the_state_of_the_cpu_is_what_the_kernel_shows(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    nothing = environment.cpu_state(tmp_path, cpuinfo)
    assert set(nothing.values()) == {None}
    cpuinfo.write_text("cpu MHz\t\t: 1200.5\ncpu MHz\t\t: 3100.25\n")
    for zone, millidegrees in enumerate((41_000, 63_500)):
        folder = tmp_path / "class/thermal" / f"thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(f"{millidegrees}\n")
    governor = tmp_path / "devices/system/cpu/cpu0/cpufreq"
    governor.mkdir(parents=True)
    (governor / "scaling_governor").write_text("powersave\n")
    found = environment.cpu_state(tmp_path, cpuinfo)
    assert found == {"clock_mhz": 3100.25, "celsius": 63.5, "power_state": "powersave"}


def test_environment_names_what_a_timing_depends_on() -> None:
    found = environment.environment("cpu")
    assert found["device"] == "cpu"
    assert found["device_name"] == found["cpu"]
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert found["driver"] is None


def test_the_cpu_is_named_by_the_kernel_or_else_by_the_platform(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    assert environment.cpu_model(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fake CPU @ 3 GHz\nflags : a\n")
    assert environment.cpu_model(cpuinfo) == "Fake CPU @ 3 GHz"


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC", "535.104.05"),
        ("NVIDIA UNIX Open Kernel Module for x86_64  580.95  Release Build  (dvs)", "580.95"),
        ("something else", None),
    ],
)
def test_the_driver_is_read_from_the_kernel_module(
    tmp_path: Path, line: str, driver: str | None
) -> None:
    version = tmp_path / "version"
    version.write_text(f"NVRM version: {line}\nGCC version:  gcc version 12.3.0\n")
    assert environment.nvidia_driver(version) == driver
    assert environment.nvidia_driver(tmp_path / "absent") is None
