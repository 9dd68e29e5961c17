"""Counters of energy that the hardware keeps: RAPL for CPUs; Apple chips and GPUs by zeus."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from effattack.errors import MeasurementError, install

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows RAPL: https://docs.kernel.org/power/powercap/powercap.html."""


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


class AppleCounter:
    """The CPU cores of an Apple chip, through zeus (not the DRAM, not the GPU).

    Raises:
        MeasurementError: with the reason why it cannot be read, and the remedy.
    """

    name = "apple"

    def __init__(self) -> None:
        get_soc = _from_zeus("zeus.device.soc", "get_soc")
        try:
            self._soc = get_soc()
            known = self._soc.get_total_energy_consumption().cpu_total_mj
        except Exception as error:
            raise MeasurementError(
                f"zeus cannot read this chip ({error}): pip install zeus-apple-silicon"
            ) from error
        if known is None:
            raise MeasurementError("this chip does not count the energy of its CPU cores")

    def joules(self) -> float:
        return self._soc.get_total_energy_consumption().cpu_total_mj / 1000


class GpuCounter:
    """One GPU, whole board, through zeus: NVML (NVIDIA, Volta and newer), or AMD SMI under ROCm.

    Raises:
        MeasurementError: with the reason why it cannot be read, and the remedy.
    """

    name = "amdsmi" if torch.version.hip else "nvml"

    def __init__(self, device: torch.device) -> None:
        if not torch.cuda.is_available():
            raise MeasurementError("torch sees no CUDA device here")
        get_gpus = _from_zeus("zeus.device", "get_gpus")
        index = torch.cuda.current_device() if device.index is None else device.index
        ours = torch.cuda.get_device_name(index)
        try:
            gpus = get_gpus()
            theirs = gpus.get_name(index)
            supported = gpus.supports_get_total_energy_consumption(index)
        except Exception as error:
            raise MeasurementError(f"{self.name}: {type(error).__name__}: {error}") from error
        if theirs != ours:
            raise MeasurementError(
                f"{self.name} calls GPU {index} {theirs!r}, torch {ours!r}: set "
                "CUDA_DEVICE_ORDER=PCI_BUS_ID; a MIG slice has no counter of its own"
            )
        if not supported:
            raise MeasurementError(
                f"{ours} has no energy counter: NVIDIA's have one from Volta on, AMD's "
                "where it is accurate"
            )
        self._gpus, self._index = gpus, index

    def joules(self) -> float:
        return self._gpus.get_total_energy_consumption(self._index) / 1000


ON_MAC = sys.platform == "darwin"
OF_CPU = AppleCounter.name if ON_MAC else RaplCounter.name
OF_GPU = GpuCounter.name
"""The names of the counters of this machine's kinds of device."""


def available_counters(
    device: torch.device | str, *, powercap: Path = POWERCAP
) -> tuple[list[Counter], dict[str, str]]:
    """The counters that see the work of a device, and for each other one the reason why not.

    A counter of another device is not offered: the CPU's says nothing of work done on a GPU.
    """
    device = torch.device(device)
    of_cpu: Callable[[], Counter] = AppleCounter if ON_MAC else lambda: RaplCounter(powercap)
    probes: dict[str, tuple[str, Callable[[], Counter]]] = {
        OF_GPU: ("cuda", lambda: GpuCounter(device)),
        OF_CPU: ("cpu", of_cpu),
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


def _from_zeus(module: str, name: str) -> Callable[[], Any]:
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise MeasurementError(f"zeus does not import ({error}): {install('energy')}") from error


def _is_package(zone: Path) -> bool:
    return (zone / "name").read_text(encoding="utf-8").startswith("package")


def _joules(microjoules: Path) -> float:
    return int(microjoules.read_text(encoding="utf-8")) * 1e-6
