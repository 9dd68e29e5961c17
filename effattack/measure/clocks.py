"""Clocks, and the state in which the deployed path is timed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from effattack.errors import MeasurementError, UsageError, unknown_name
from effattack.victim import Victim

Call = Callable[[], object]


class Clock(Protocol):
    """One way to time a call."""

    name: str

    def time(self, function: Call) -> float:
        """Seconds that one call takes."""


class WallClock:
    """Wall clock; the device is synchronised before and after, so queued work counts."""

    name = "wall"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def time(self, function: Call) -> float:
        synchronize(self.device)
        start = time.perf_counter_ns()
        function()
        synchronize(self.device)
        return (time.perf_counter_ns() - start) * 1e-9


class CudaEventClock:
    """Time between two events on the current CUDA stream: the device's view of the call."""

    name = "cuda_event"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def time(self, function: Call) -> float:
        with torch.cuda.device(self.device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) * 1e-3


class CpuTimeClock:
    """CPU time of this process, all threads added up: blind to waiting, and to other processes."""

    name = "cpu_time"

    def time(self, function: Call) -> float:
        start = time.process_time_ns()
        function()
        return (time.process_time_ns() - start) * 1e-9


def clocks_for(device: torch.device) -> tuple[Clock, ...]:
    """The clocks that time a device: the wall clock always, CUDA events beside it on CUDA."""
    wall = WallClock(device)
    return (wall, CudaEventClock(device)) if device.type == "cuda" else (wall,)


def clock_named(name: str, device: torch.device | str) -> Clock:
    """The clock ``wall``, ``cuda_event`` or ``cpu_time`` for a device.

    Raises:
        UsageError: for another name, or CUDA events of a device that has none.
    """
    device = torch.device(device)
    if name == CudaEventClock.name and device.type != "cuda":
        raise UsageError(f"clock cuda_event reads CUDA devices, not {device}: use wall or cpu_time")
    clocks: tuple[Clock, ...] = (WallClock(device), CudaEventClock(device), CpuTimeClock())
    known = {clock.name: clock for clock in clocks}
    if name not in known:
        raise unknown_name("clock", name, known)
    return known[name]


@contextmanager
def deployed(victim: Victim, example: Tensor) -> Iterator[None]:
    """Run as a deployment does: in eval mode, under ``torch.inference_mode()``.

    A victim that cannot run under inference mode (it updates a tensor made outside) is run under
    ``torch.no_grad()``, with a warning. Training mode is restored afterwards.

    Args:
        victim: put into eval mode.
        example: images of one call, on the victim's device, to find out.
    """
    modes = {m: m.training for m in victim.modules() if hasattr(m, "training")}
    try:
        victim.eval()
        with torch.inference_mode(mode=_runs_in_inference_mode(victim, example)), torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _runs_in_inference_mode(victim: Victim, example: Tensor) -> bool:
    try:
        with torch.inference_mode():
            victim(example)
    except (RuntimeError, MeasurementError) as error:
        with torch.no_grad():
            victim(example)
        message = f"{victim.name} is measured under no_grad: inference mode raised {error!r}"
        warnings.warn(message, stacklevel=2)
        return False
    return True


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its queued work; a CPU queues none."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
