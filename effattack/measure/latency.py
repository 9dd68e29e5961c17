"""Latency of the deployed path: the same images clean and attacked, timed in ABBA order.

    image    0        1        2        3
    pass 0   A B B A  B A A B  A B B A  B A A B  ...
    pass 1   B A A B  A B B A  B A A B  A B B A  ...     ``repeats`` passes

A is clean, B attacked, in one process. Within a quadruple both arms are equally early on average,
so whatever drifts linearly (heat, a neighbour's load) adds the same to both. Every other quadruple
is mirrored, because the first call on an image is the slowest: with A always first, clean against
clean gave 0.993 and 14 % false alarms (digits_cnn_early_exit, busy CPU), mirrored 1.001 and 3 %.
What is left shows in :func:`aa_check`.
"""

from __future__ import annotations

import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.measure.statistics import Interval, median_ratio
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


def time_pairs(
    victim: Victim,
    clean: Tensor,
    attacked: Tensor,
    *,
    batch_size: int = 1,
    repeats: int = 3,
    clocks: Sequence[Clock] | None = None,
) -> pd.DataFrame:
    """Time ``victim(images)`` on each image, clean and attacked, in ABBA order.

    The victim runs in eval mode (restored afterwards) on its own device, images moved there
    before. Each clock has passes of its own, after a warm-up of its own.

    Args:
        victim: whose deployed path is timed.
        clean: (B, *input_shape) in [0, 1].
        attacked: (B, *input_shape): the same images, attacked, in the same order.
        batch_size: images per call; 1 is what the savings of most victims are made for.
        repeats: quadruples per image; the median over them is what counts.
        clocks: by default those of :func:`clocks_for`.

    Returns:
        One row per image and clock (per batch, if ``batch_size`` is above 1): ``image`` (index of
        the first one), ``images`` (how many), ``clock``, ``seconds_clean`` and
        ``seconds_attacked`` (of one image; NaN where the clock is too coarse to have moved),
        ``settled`` (whether the warm-up reached a stable median).

    Raises:
        UsageError: for arms that do not pair up, no images, or counts below 1.
    """
    _check(clean, attacked, batch_size, repeats)
    device = victim.device
    arms = (images.to(device).split(batch_size) for images in (clean, attacked))
    run: Callable[[Tensor], Tensor] = victim
    pairs = [(partial(run, a), partial(run, b)) for a, b in zip(*arms, strict=True)]
    first = np.arange(0, len(clean), batch_size)
    sizes = np.minimum(batch_size, len(clean) - first)
    frames = []
    with deployed(victim, clean[:batch_size].to(device)):
        for clock in clocks_for(device) if clocks is None else clocks:
            settled = warm_up(clock, pairs)
            passes = [
                [
                    quadruple(clock, a, b, mirrored=(row + turn) % 2 == 1)
                    for row, (a, b) in enumerate(pairs)
                ]
                for turn in range(repeats)
            ]
            seconds = np.median(np.array(passes), axis=0) / sizes[:, None]
            seconds[seconds <= 0] = np.nan
            columns = {
                "image": first,
                "images": sizes,
                "clock": clock.name,
                "seconds_clean": seconds[:, 0],
                "seconds_attacked": seconds[:, 1],
                "settled": settled,
            }
            frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def latency_ratio(
    timings: pd.DataFrame, clock: str = "wall", *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Attacked over clean by one clock: :func:`median_ratio` over the rows of `time_pairs`."""
    rows = timings[timings["clock"] == clock]
    return median_ratio(
        rows["seconds_attacked"], rows["seconds_clean"], confidence=confidence, seed=seed
    )


class AACheck(NamedTuple):
    """Clean against clean: what the protocol finds where there is nothing to find."""

    fires: bool
    """The interval excludes 1: this machine is too disturbed now for a verdict on latency."""
    interval: Interval
    """Of the ratio of the two clean arms; its distance from 1 is the spurious effect."""


def aa_check(
    victim: Victim,
    clean: Tensor,
    *,
    batch_size: int = 1,
    repeats: int = 3,
    clocks: Sequence[Clock] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, AACheck]:
    """Time clean images against a copy of themselves, by the protocol of :func:`time_pairs`.

    An undisturbed machine still fires in about ``1 - confidence`` of the checks.

    Returns:
        The check of each clock, by its name. Where one fires, give no verdict by that clock.
    """
    timings = time_pairs(
        victim, clean, clean.clone(), batch_size=batch_size, repeats=repeats, clocks=clocks
    )
    intervals = {
        str(clock): latency_ratio(timings, str(clock), confidence=confidence, seed=seed)
        for clock in timings["clock"].unique()
    }
    return {name: AACheck(interval.excludes(1), interval) for name, interval in intervals.items()}


def quadruple(clock: Clock, a: Call, b: Call, *, mirrored: bool = False) -> tuple[float, float]:
    """Mean seconds of ``a`` and of ``b``, called in the order a b b a (mirrored: b a a b)."""
    outer, inner = (b, a) if mirrored else (a, b)
    first, second, third, fourth = (clock.time(call) for call in (outer, inner, inner, outer))
    outside, inside = (first + fourth) / 2, (second + third) / 2
    return (inside, outside) if mirrored else (outside, inside)


def warm_up(
    clock: Clock,
    pairs: Sequence[tuple[Call, Call]],
    *,
    window: int = 10,
    tolerance: float = 0.05,
    at_most: int = 200,
    seconds: float = 10.0,
) -> bool:
    """Run every pair once, then the first one until its rolling median is stable.

    The first round meets every code path and every shape (exits taken, tokens kept), each of which
    may compile or allocate something on its first call.

    Args:
        clock: what reads the time.
        pairs: calls of the two arms; both belong to one reading.
        window: readings per median; two successive medians are compared.
        tolerance: relative difference up to which they are the same.
        at_most: readings until the warm-up gives up.
        seconds: of all readings together until it gives up, two windows at the least.

    Returns:
        Whether the median became stable.
    """
    for a, b in pairs:
        a(), b()
    a, b = pairs[0]
    readings: list[float] = []
    while len(readings) < 2 * window or (len(readings) < at_most and sum(readings) < seconds):
        readings.append(clock.time(lambda: (a(), b())))
        if len(readings) >= 2 * window:
            before, now = median(readings[-2 * window : -window]), median(readings[-window:])
            if abs(now - before) <= tolerance * before:
                return True
    return False


@contextmanager
def deployed(victim: Victim, example: Tensor) -> Iterator[None]:
    """Run as a deployment does: in eval mode, under ``torch.inference_mode()``.

    A victim that cannot run under inference mode (it updates a tensor made outside) is run under
    ``torch.no_grad()``, with a warning. Training mode is restored afterwards.

    Args:
        victim: put into eval mode.
        example: images of one call, on the victim's device, to find out.
    """
    modes = {module: module.training for module in victim.modules()}
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
    except RuntimeError as error:
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


def environment(device: torch.device | str) -> dict[str, str | int | float | None]:
    """What a timing depends on beside the model, to be stored with it; None where unreadable.

    ``load_average`` is that of the last minute, in runnable processes.
    """
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_cuda else cpu_model(),
        "driver": nvidia_driver() if on_cuda else None,
        "cuda": torch.version.cuda if on_cuda else None,
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name from the kernel, or what the platform calls it."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def nvidia_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of the loaded NVIDIA kernel module, for example 570.86.15; None without one."""
    text = version.read_text() if version.exists() else ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None


def _check(clean: Tensor, attacked: Tensor, batch_size: int, repeats: int) -> None:
    if clean.shape != attacked.shape:
        raise UsageError(
            f"clean images have shape {tuple(clean.shape)}, attacked {tuple(attacked.shape)}: "
            "give the same images in the same order"
        )
    if not len(clean):
        raise UsageError("there are no images to time: the batch is empty")
    if batch_size < 1 or repeats < 1:
        raise UsageError(f"batch_size is {batch_size}, repeats {repeats}: both start at 1")
