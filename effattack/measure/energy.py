"""Energy of the deployed path, in joules per image, from counters that the hardware keeps.

One arm is looped over its images for windows of at least 5 s: NVML's counter moves every 20 to
100 ms, and shorter windows are mostly its rounding. The first window is discarded. A counter that
did not advance gives an empty result with the reason, never 0.

The values in a matrix product change its power by up to 40 % at equal shapes
(https://arxiv.org/abs/2409.18324): a ratio above 1 means little without that of a noise arm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, nan
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from effattack.errors import MeasurementError, UsageError
from effattack.measure.latency import deployed, synchronize
from effattack.measure.statistics import NOTHING, Interval, median_ratio
from effattack.victim import Victim

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL: https://docs.kernel.org/power/powercap/powercap.html."""

SHORTEST_WINDOW = 5.0
"""Seconds."""

Now = Callable[[], float]


class Counter(Protocol):
    """A counter of energy."""

    name: str

    def joules(self) -> float:
        """Joules since some fixed moment; never decreases."""


class Register:
    """A register that counts joules upwards and starts again after ``span`` of them.

    Wrap-arounds are seen as long as it is read more often than it wraps; a package of 200 W fills
    its 262 kJ in 22 minutes.

    Args:
        read: the register's state, in joules.
        span: joules at which it starts again at 0.
    """

    def __init__(self, read: Callable[[], float], span: float) -> None:
        self._read, self._span = read, span
        self._last, self._total = read(), 0.0

    def joules(self) -> float:
        """Joules since this object was made."""
        reading = self._read()
        self._total += reading - self._last + (self._span if reading < self._last else 0.0)
        self._last = reading
        return self._total


class RaplCounter:
    """All CPU packages of this machine (cores, caches, memory controller; not the DRAM).

    Args:
        powercap: folder with the ``intel-rapl:N`` zones, which AMD processors have as well.

    Raises:
        MeasurementError: naming the file that is missing or unreadable, and the remedy.
    """

    name = "rapl"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        try:
            zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if _is_package(zone)]
            self._registers = [
                Register(
                    partial(_joules, zone / "energy_uj"), _joules(zone / "max_energy_range_uj")
                )
                for zone in zones
            ]
        except PermissionError as error:
            raise MeasurementError(
                f"{error.filename} may be read by root only: sudo chmod o+r {error.filename}"
            ) from error
        except (OSError, ValueError) as error:
            raise MeasurementError(f"RAPL cannot be read: {error}") from error
        if not zones:
            raise MeasurementError(
                f"no CPU package under {powercap}/intel-rapl:*: virtual machines and containers "
                "hide it, on real hardware try sudo modprobe intel_rapl_msr"
            )

    def joules(self) -> float:
        return sum(register.joules() for register in self._registers)


class NvmlCounter:
    """One NVIDIA GPU, whole board, by NVML through zeus (Volta and newer).

    Raises:
        MeasurementError: with the reason why it cannot be read, and the remedy.
    """

    name = "nvml"

    def __init__(self, device: torch.device) -> None:
        if not torch.cuda.is_available():
            raise MeasurementError("torch sees no CUDA device here: see effattack doctor")
        try:
            from zeus.device import get_gpus
        except ImportError as error:
            raise MeasurementError(
                f"zeus does not import ({error}): pip install 'effattack[energy]'"
            ) from error
        index = torch.cuda.current_device() if device.index is None else device.index
        ours = torch.cuda.get_device_name(index)
        try:
            gpus = get_gpus()
            theirs = gpus.get_name(index)
            supported = gpus.supports_get_total_energy_consumption(index)
        except Exception as error:
            raise MeasurementError(f"NVML: {type(error).__name__}: {error}") from error
        if theirs != ours:
            raise MeasurementError(
                f"NVML calls GPU {index} {theirs!r}, CUDA {ours!r}: set "
                "CUDA_DEVICE_ORDER=PCI_BUS_ID; a MIG slice has no counter of its own"
            )
        if not supported:
            raise MeasurementError(f"{ours} has no energy counter: it takes Volta or newer")
        self._gpus, self._index = gpus, index

    def joules(self) -> float:
        return self._gpus.get_total_energy_consumption(self._index) / 1000


def available_counters(
    device: torch.device | str, *, powercap: Path = POWERCAP
) -> tuple[list[Counter], dict[str, str]]:
    """The counters that see the work of a device, and for each other one the reason why not.

    A counter of another device is not offered: the CPU's says nothing of work done on a GPU.
    """
    device = torch.device(device)
    probes: dict[str, tuple[str, Callable[[], Counter]]] = {
        NvmlCounter.name: ("cuda", lambda: NvmlCounter(device)),
        RaplCounter.name: ("cpu", lambda: RaplCounter(powercap)),
    }
    counters: list[Counter] = []
    reasons: dict[str, str] = {}
    for name, (kind, probe) in probes.items():
        if kind != device.type:
            reasons[name] = f"counts {kind} devices, the victim runs on {device}"
            continue
        try:
            counters.append(probe())
        except MeasurementError as error:
            reasons[name] = str(error)
    return counters, reasons


def why_empty(device: torch.device | str, *, powercap: Path = POWERCAP) -> list[str]:
    """What keeps each unreachable counter from a device: lines like ``"rapl: ..."``."""
    _, reasons = available_counters(device, powercap=powercap)
    return [f"{name}: {reason}" for name, reason in reasons.items()]


class Energy(NamedTuple):
    """What one arm took."""

    joules_per_image: float
    """NaN where nothing could be measured."""
    images: int
    """How many were run in the window."""
    seconds: float
    """Length of the window."""
    reason: str = ""
    """Why ``joules_per_image`` is NaN."""


def joules_per_image(
    victim: Victim,
    images: Tensor,
    counter: Counter,
    *,
    window: float = SHORTEST_WINDOW,
    batch_size: int = 1,
    now: Now = time.perf_counter,
) -> Energy:
    """Loop the deployed path over images for two windows; the second one counts.

    Args:
        victim: whose deployed path is measured, in eval mode (restored afterwards).
        images: (B, *input_shape) in [0, 1]; a window is a whole number of passes over them.
        counter: one of :func:`available_counters`.
        window: seconds, at least 5; a longer pass makes a longer window.
        batch_size: images per call.
        now: the time in seconds.

    Raises:
        UsageError: for a shorter window, or no images.
    """
    return _windows(victim, (images, images), counter, window, batch_size, now)[1]


class EnergyRatio(NamedTuple):
    """Attacked against clean, by one counter."""

    ratio: Interval
    """Of joules per image, over pairs of windows; bounds are NaN below 6 pairs, all NaN where
    nothing could be measured."""
    joules_clean: float
    """Joules per image, mean over windows."""
    joules_attacked: float
    """Joules per image, mean over windows."""
    counter: str
    """Its name."""
    reason: str = ""
    """Why all of it is NaN."""


def energy_ratio(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    counter: Counter,
    window: float = SHORTEST_WINDOW,
    *,
    repeats: int = 1,
    batch_size: int = 1,
    now: Now = time.perf_counter,
) -> EnergyRatio:
    """Joules per image of attacked over clean images, in windows paired in ABBA order.

    It takes ``(1 + 4 * repeats) * window`` seconds: one discarded window, then two pairs per
    repeat. Three repeats are the fewest that carry a 95 % interval.

    Args:
        victim, counter, window, batch_size, now: see :func:`joules_per_image`.
        clean: (B, *input_shape) in [0, 1].
        attacked: (B, *input_shape): the same images, attacked.
        repeats: quadruples of windows.

    Raises:
        UsageError: for arms that do not pair up, no images, a short window, no repeats.
    """
    if clean.shape != attacked.shape or repeats < 1:
        raise UsageError(
            f"clean {tuple(clean.shape)}, attacked {tuple(attacked.shape)}, repeats {repeats}: "
            "give the same images in the same order, and at least one repeat"
        )
    order = (clean, attacked, attacked, clean) * repeats
    measured = _windows(victim, (clean, *order), counter, window, batch_size, now)[1:]
    if reason := next((energy.reason for energy in measured if energy.reason), ""):
        return EnergyRatio(NOTHING, nan, nan, counter.name, reason)
    joules = [energy.joules_per_image for energy in measured]
    below, above = joules[0::4] + joules[3::4], joules[1::4] + joules[2::4]
    ratio = median_ratio(above, below)
    count = len(below)
    return EnergyRatio(ratio, sum(below) / count, sum(above) / count, counter.name)


def _windows(
    victim: Victim,
    arms: Sequence[Tensor],
    counter: Counter,
    window: float,
    batch_size: int,
    now: Now,
) -> list[Energy]:
    if not SHORTEST_WINDOW <= window < inf:
        raise UsageError(f"a window of {window} s is too short: use {SHORTEST_WINDOW:g} s or more")
    if not len(arms[0]) or batch_size < 1:
        raise UsageError(
            f"{len(arms[0])} images in batches of {batch_size}: give at least one of both"
        )
    with deployed(victim, arms[0][:batch_size].to(victim.device)):
        return [
            _window(victim, images.to(victim.device).split(batch_size), counter, window, now)
            for images in arms
        ]


def _window(
    victim: Victim, batches: Sequence[Tensor], counter: Counter, window: float, now: Now
) -> Energy:
    synchronize(victim.device)
    images, seconds = 0, 0.0
    start, before = now(), counter.joules()
    while seconds < window:
        for batch in batches:
            victim(batch)
            images += len(batch)
        synchronize(victim.device)
        seconds = now() - start
    joules = counter.joules() - before
    if joules <= 0:
        reason = f"{counter.name} did not advance in {seconds:.1f} s of work"
        return Energy(nan, images, seconds, reason)
    return Energy(joules / images, images, seconds)


def _is_package(zone: Path) -> bool:
    return (zone / "name").read_text().startswith("package")


def _joules(microjoules: Path) -> float:
    return int(microjoules.read_text()) * 1e-6
