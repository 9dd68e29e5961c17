"""Energy from counters that replay what they are told, in a time that only the victim moves."""

from __future__ import annotations

import sys
from math import isnan, nan
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from toys import LinearSaver, grey_images

from effattack import evaluate
from effattack.cells import timing
from effattack.errors import MeasurementError, UsageError
from effattack.measure import counters
from effattack.measure.counters import (
    AppleCounter,
    GpuCounter,
    RaplCounter,
    Register,
    available_counters,
    why_empty,
)
from effattack.measure.energy import (
    EnergyRatio,
    energy_controls,
    energy_ratio,
    joules_per_image,
)
from effattack.measure.statistics import NOTHING
from effattack.victim import Victim

CUDA = torch.device("cuda")


class Bench(Victim):
    """Victim, clock and counter in one: an image takes 0.4 s and as many joules as it says."""

    def __init__(self) -> None:
        shape = (1, 1, 1)
        super().__init__(
            name="bench", family="fake", input_shape=shape, num_classes=1, max_macs=1, dense_macs=1
        )
        self.seconds, self.used = 0.0, 0.0
        self.calls: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seconds += 0.4 * len(images)
        self.used += self.factor() * images.sum().item()
        self.calls.append(images[0].item())
        return images.flatten(1)

    def factor(self) -> float:
        return 1.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        """Idle, it uses 2 W."""
        self.seconds += seconds
        self.used += 2 * seconds

    @property
    def time(self) -> dict:
        return {"now": self.now, "sleep": self.sleep}


class ReplayCounter:
    """Shows what the bench used, from the moment on when it starts to move."""

    name = "replay"

    def __init__(self, bench: Bench, stuck_after: float = float("inf")) -> None:
        self.bench, self.stuck_after = bench, stuck_after

    def joules(self) -> float:
        return min(self.bench.used, self.stuck_after)


def images(*joules: float) -> Tensor:
    return torch.tensor(joules, dtype=torch.float64).reshape(-1, 1, 1, 1)


@given(st.floats(1, 100), st.lists(st.floats(0, 0.99), max_size=20))
def test_a_register_that_wraps_around_loses_nothing(span: float, steps: list[float]) -> None:
    """Every step is shorter than the span, so a smaller reading is exactly one wrap-around."""
    state = 0.7 * span
    register = Register(lambda: state % span, span)
    for step in steps:
        state += step * span
        assert register.joules() == pytest.approx(state - 0.7 * span, abs=1e-9 * span)


def rapl_zone(powercap: Path, zone: str, name: str, microjoules: int, span: int = 1000) -> Path:
    folder = powercap / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{span * 10**6}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_rapl_adds_up_packages_and_unwraps_them(tmp_path: Path) -> None:
    first = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    second = rapl_zone(tmp_path, "intel-rapl:1", "package-1", 5_000_000)
    core = rapl_zone(tmp_path, "intel-rapl:0:0", "core", 0)
    platform = rapl_zone(tmp_path, "intel-rapl:2", "psys", 0)
    (counter,), reasons = available_counters("cpu", powercap=tmp_path)
    assert list(reasons) == ["nvml"]
    assert counter.name == "rapl"
    assert counter.joules() == 0
    for other in (core, platform):
        other.write_text("900000000")
    first.write_text("3000000")
    second.write_text("7500000")
    assert counter.joules() == pytest.approx(4 + 2.5)
    assert counter.joules() == pytest.approx(6.5)


def test_rapl_without_permission_names_the_file_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def deny(path: Path, **_: str) -> str:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path)

    monkeypatch.setattr(Path, "read_text", deny)
    found, _ = available_counters("cpu", powercap=tmp_path)
    assert found == []
    nvml, rapl = why_empty("cpu", powercap=tmp_path)
    assert nvml == "nvml: counts cuda devices, the victim runs on cpu"
    assert rapl == f"rapl: {locked} may be read by root only: sudo chmod o+r {locked}"


def test_rapl_that_is_absent_or_broken_says_so(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="no CPU package under"):
        RaplCounter(tmp_path / "absent")
    rapl_zone(tmp_path, "intel-rapl:0", "package-0", 1).write_text("not a number")
    with pytest.raises(MeasurementError, match=r"cannot be read.*not a number"):
        RaplCounter(tmp_path)


class FakeGpus:
    """What zeus.device.get_gpus() gives, as far as it is used here."""

    def __init__(self, name: str = "Fake GPU", supported: bool = True) -> None:
        self.name, self.supported, self.millijoules = name, supported, 5_000

    def get_name(self, index: int) -> str:
        return self.name

    def supports_get_total_energy_consumption(self, index: int) -> bool:
        return self.supported

    def get_total_energy_consumption(self, index: int) -> int:
        return self.millijoules


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: FakeGpus | None) -> None:
    """A machine with a CUDA device, and with zeus if there are ``gpus``."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Fake GPU")
    device = SimpleNamespace(get_gpus=lambda: gpus) if gpus else None
    monkeypatch.setitem(sys.modules, "zeus", ModuleType("zeus"))
    monkeypatch.setitem(sys.modules, "zeus.device", device)


def test_nvml_reads_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = FakeGpus()
    pretend(monkeypatch, gpus)
    (counter,), reasons = available_counters("cuda")
    assert list(reasons) == ["rapl"]
    before = counter.joules()
    gpus.millijoules += 1_500
    assert counter.joules() - before == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("gpus", "reason"),
    [
        (None, r"pip install '\.\[energy\]'"),
        (FakeGpus(name="Other GPU"), "'Other GPU'.*'Fake GPU'.*PCI_BUS_ID"),
        (FakeGpus(supported=False), "no energy counter"),
        (SimpleNamespace(), "AttributeError"),
    ],
)
def test_nvml_says_why_not(
    monkeypatch: pytest.MonkeyPatch, gpus: FakeGpus | None, reason: str
) -> None:
    pretend(monkeypatch, gpus)
    with pytest.raises(MeasurementError, match=reason):
        GpuCounter(CUDA)


def test_nvml_without_a_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert available_counters("cuda")[0] == []
    assert why_empty("cuda")[0].startswith("nvml: torch sees no CUDA device")


def on_a_mac(monkeypatch: pytest.MonkeyPatch, **soc: object) -> SimpleNamespace:
    """A machine whose processor zeus reads, and that reading."""
    reading = SimpleNamespace(cpu_total_mj=7_000)
    chip = {"get_soc": lambda: SimpleNamespace(get_total_energy_consumption=lambda: reading), **soc}
    for module in ("zeus", "zeus.device"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    monkeypatch.setitem(sys.modules, "zeus.device.soc", SimpleNamespace(**chip))
    monkeypatch.setattr(counters, "ON_MAC", True)
    return reading


def test_apple_reads_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = on_a_mac(monkeypatch)
    (counter,), _ = available_counters("cpu")
    before = counter.joules()
    reading.cpu_total_mj += 2_500
    assert counter.joules() - before == pytest.approx(2.5)
    reading.cpu_total_mj = None
    with pytest.raises(MeasurementError, match="does not count the energy of its CPU cores"):
        AppleCounter()


def test_apple_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_mac(monkeypatch, get_soc=lambda: 1 / 0)
    with pytest.raises(MeasurementError, match="pip install zeus-apple-silicon"):
        AppleCounter()


def test_joules_per_image_over_whole_passes_of_the_second_window() -> None:
    class Cold(Bench):
        def factor(self) -> float:
            return 10.0 if self.seconds < 6.5 else 1.0

    bench = Cold()
    found = joules_per_image(bench, images(1, 2, 6), ReplayCounter(bench), now=bench.now)
    assert found.images == 15
    assert found.seconds == pytest.approx(6)
    assert found.joules_per_image == pytest.approx(3)
    assert found.reason == ""


@given(st.integers(1, 7), st.integers(1, 9), st.floats(5, 30))
def test_a_window_is_never_shorter_than_asked(batch: int, count: int, window: float) -> None:
    bench = Bench()
    found = joules_per_image(
        bench, images(*[2.0] * count), ReplayCounter(bench), window=window, batch_size=batch,
        now=bench.now,
    )  # fmt: skip
    assert window <= found.seconds <= window + 0.4 * count + 1e-6
    assert found.images % count == 0
    assert found.joules_per_image == pytest.approx(2)


def test_a_counter_that_does_not_advance_gives_nothing_and_the_reason() -> None:
    bench = Bench()
    counter = ReplayCounter(bench, stuck_after=0.0)
    alone = joules_per_image(bench, images(1.0), counter, now=bench.now)
    assert isnan(alone.joules_per_image)
    assert alone.reason == "replay did not advance in 5.2 s of work"
    ratio = energy_ratio(bench, images(1.0), images(2.0), counter, **bench.time)
    assert all(
        map(isnan, (*ratio.ratio, ratio.joules_clean, ratio.joules_attacked, ratio.idle_watts))
    )
    assert ratio.reason == alone.reason


def test_why_there_is_no_energy_is_told_with_the_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The reason of the place that metered, not of the one that asks."""
    victim, grey = LinearSaver(), grey_images(8)
    reasons = ["rapl: /sys/energy_uj may be read by root only: sudo chmod o+r /sys/energy_uj"]
    monkeypatch.setattr(timing, "available_counters", lambda device: ([], {}))
    monkeypatch.setattr(timing, "why_empty", lambda device: reasons)
    settings = {"energy": True, "timed": 6, "out": tmp_path}
    found = evaluate(victim, grey, torch.zeros(8, dtype=torch.long), ["noise"], **settings)
    assert found.meta["energy"] == reasons[0]
    assert f"toy: no energy is given: {reasons[0]}" in found.meta["notes"]
    stuck = EnergyRatio(NOTHING, nan, nan, "rapl", nan, "rapl did not advance in 5.2 s of work")
    monkeypatch.setattr(timing, "available_counters", lambda device: (["rapl"], {}))
    monkeypatch.setattr(timing, "energy_ratio", lambda *_, **__: stuck)
    found = evaluate(victim, grey[:7], torch.zeros(7, dtype=torch.long), ["noise"], **settings)
    assert found.meta["energy"] == stuck.reason


def test_a_counter_that_stops_halfway_gives_nothing_either() -> None:
    bench = Bench()
    counter = ReplayCounter(bench, stuck_after=60.0)
    found = energy_ratio(bench, images(1.0), images(2.0), counter, **bench.time)
    assert isnan(found.ratio.value)
    assert "did not advance" in found.reason


def test_energy_ratio_pairs_windows_in_abba_order() -> None:
    bench = Bench()
    found = energy_ratio(bench, images(1.0), images(3.0), ReplayCounter(bench), **bench.time)
    _probe, *windows = bench.calls
    assert windows == [1] * 13 + [1] * 13 + [3] * 26 + [1] * 13
    assert found.ratio.value == pytest.approx(3)
    assert isnan(found.ratio.low)
    assert (found.joules_clean, found.joules_attacked) == pytest.approx((1, 3))
    assert (found.counter, found.reason) == ("replay", "")
    assert found.idle_watts == pytest.approx(2)


def test_a_register_wraps_around_in_the_middle_of_a_window() -> None:
    bench = Bench()
    counter = ReplayCounter(bench)
    counter.joules = Register(lambda: (bench.used + 95) % 100, 100).joules  # type: ignore[method-assign]
    found = energy_ratio(bench, images(1.0), images(3.0), counter, **bench.time)
    assert bench.used > 100
    assert (found.joules_clean, found.joules_attacked) == pytest.approx((1, 3))


class Worker(Bench):
    """Uses energy by its work, which grows with the value of an image, and by the values alone."""

    def __init__(self, name: str, follows: bool) -> None:
        super().__init__()
        self.name, self.follows = name, follows
        self.register_buffer("weight", torch.ones(1, 1, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        value = images.flatten()[0].item()
        for _ in range(round(value) if self.follows else 1):
            images.flatten(1) @ self.weight
        self.used += value if self.follows else 0
        return super().forward(images)


def test_controls_tell_compute_from_the_power_of_values() -> None:
    victim, twin = Worker("victim", follows=True), Worker("twin", follows=False)
    arms = images(1.0), images(1.0), images(4.0)

    class Both:
        name = "both"

        def joules(self) -> float:
            return victim.used + twin.used

    def now() -> float:
        return victim.seconds + twin.seconds

    frame = energy_controls(victim, twin, *arms, Both(), now=now, sleep=victim.sleep)
    ratios = frame.set_index(["model", "arm"]).energy_ratio
    assert ratios.to_dict() == pytest.approx(
        {
            ("victim", "noise"): 1,
            ("victim", "attacked"): 4,
            ("twin", "noise"): 1,
            ("twin", "attacked"): 4,
        }
    )
    with pytest.raises(UsageError, match=r"victim is no static twin.* from 1 to 4"):
        energy_controls(victim, victim, *arms, Both(), now=now, sleep=victim.sleep)


def test_three_repeats_carry_an_interval() -> None:
    bench = Bench()
    found = energy_ratio(
        bench, images(1.0), images(3.0), ReplayCounter(bench), repeats=3, **bench.time
    )
    assert found.ratio == pytest.approx((3, 3, 3))


def test_power_that_grows_steadily_favours_no_arm() -> None:
    class Heating(Bench):
        def factor(self) -> float:
            return float(1.001 ** len(self.calls))

    bench = Heating()
    found = energy_ratio(bench, images(1.0), images(2.0), ReplayCounter(bench), **bench.time)
    assert found.ratio.value == pytest.approx(2)


def test_the_victim_is_measured_as_deployed() -> None:
    bench = Bench().train()
    joules_per_image(bench, images(1.0), ReplayCounter(bench), now=bench.now)
    assert bench.training


@pytest.mark.parametrize(
    ("clean", "attacked", "settings"),
    [
        (images(1), images(1, 2), {}),
        (images(), images(), {}),
        (images(1), images(1), {"window": 4.9}),
        (images(1), images(1), {"window": float("nan")}),
        (images(1), images(1), {"repeats": 0}),
        (images(1), images(1), {"batch_size": 0}),
    ],
)
def test_what_cannot_be_measured_is_refused(
    clean: Tensor, attacked: Tensor, settings: dict
) -> None:
    bench = Bench()
    with pytest.raises(UsageError):
        energy_ratio(bench, clean, attacked, ReplayCounter(bench), **bench.time, **settings)
