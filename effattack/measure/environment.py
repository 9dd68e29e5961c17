"""What a measurement depends on beside the model: device, driver, threads, load."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch


def environment(device: torch.device | str) -> dict[str, str | int | float | None]:
    """What a timing depends on beside the model, to be stored with it; None where unreadable.

    ``load_average`` is that of the last minute, in runnable processes; ``clock_mhz`` (of the
    streaming multiprocessors or of the fastest core), ``celsius`` (the warmest sensor of the
    device) and ``power_state`` (watts drawn by a GPU, frequency governor of a CPU) are as of now.
    """
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    return {
        "device": str(device),
        "device_name": device_name(device),
        "driver": nvidia_driver() if on_cuda else None,
        "cuda": torch.version.cuda if on_cuda else None,
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        **(_gpu_state(device) if on_cuda else cpu_state()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def cpu_state(
    sysfs: Path = Path("/sys"), cpuinfo: Path = Path("/proc/cpuinfo")
) -> dict[str, str | float | None]:
    """Clock, temperature and power state of the CPU, as far as the kernel shows them."""
    clocks = re.findall(r"^cpu MHz\s*:\s*(\S+)$", _text(cpuinfo) or "", re.MULTILINE)
    zones = [_text(file) for file in sysfs.glob("class/thermal/thermal_zone*/temp")]
    return {
        "clock_mhz": max(map(float, clocks), default=None),
        "celsius": max((int(zone) / 1000 for zone in zones if zone), default=None),
        "power_state": _text(sysfs / "devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    }


def _gpu_state(device: torch.device) -> dict[str, str | float | None]:
    """The same of a GPU, through torch, which needs nvidia-ml-py for it."""
    try:
        return {
            "clock_mhz": torch.cuda.clock_rate(device),
            "celsius": torch.cuda.temperature(device),
            "power_state": f"{torch.cuda.power_draw(device) / 1000:.0f} W",
        }
    except Exception:  # NVML has errors of its own; an unreadable state voids no timing
        return {"clock_mhz": None, "celsius": None, "power_state": None}


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def device_name(device: torch.device | str) -> str:
    """The model of the GPU or of the processor."""
    on_cuda = torch.device(device).type == "cuda"
    return torch.cuda.get_device_name(device) if on_cuda else cpu_model()


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name from the kernel, or what the platform calls it."""
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def nvidia_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of the loaded NVIDIA kernel module, for example 570.86.15; None without one."""
    text = version.read_text(encoding="utf-8") if version.exists() else ""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return found[1] if found else None
