"""What can be measured on this machine, and what is missing: ``effattack doctor``."""

from __future__ import annotations

import platform
import time
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from effattack.errors import install
from effattack.measure.counters import OF_CPU, OF_GPU, POWERCAP, available_counters
from effattack.measure.environment import cpu_model, nvidia_driver, usable_cores

EXTRAS = {
    "torchattacks": "torchattacks",
    "torchao": "quant",
    "bitsandbytes": "quant",
    "zeus": "energy",
    "cairosvg": "pdf",
    "ray": "ray",
    "simpy": "serving",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "transformers": "language",
    "tokenizers": "language",
    "gguf": "language",
}
"""Optional package -> the extra of effattack that installs it."""


class Finding(NamedTuple):
    """One line of the diagnosis."""

    what: str
    """``"torch"``, ``"device cuda:0"``, ``"energy rapl on cpu"``, ``"package ray"``."""
    ok: bool
    """Whether it is there."""
    detail: str
    """What was found; where it is missing, the cause and the remedy."""


def diagnose(*, powercap: Path = POWERCAP) -> list[Finding]:
    """Everything that effattack could use on this machine, found or missing.

    Nothing is timed and no model is run. Optional packages are imported: one that is there may
    not fit this torch.
    """
    return [*_software(), *_devices(), *_clocks(), *_energy(powercap), *_packages()]


def _software() -> list[Finding]:
    return [
        Finding("python", True, f"{platform.python_version()} on {platform.platform()}"),
        Finding("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads"),
    ]


def _devices() -> list[Finding]:
    cpu = Finding("device cpu", True, f"{cpu_model()}, {usable_cores()} usable cores")
    if not torch.cuda.is_available():
        return [cpu, Finding("device cuda", False, why_no_cuda())]
    driver = nvidia_driver() or "of unknown version"
    names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return [
        cpu,
        *(
            Finding(f"device cuda:{index}", True, f"{name}, driver {driver}")
            for index, name in enumerate(names)
        ),
    ]


def why_no_cuda() -> str:
    """Why torch offers no CUDA device here, and what to do about it."""
    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is built without CUDA: install a CUDA build of torch"
    if (driver := nvidia_driver()) is None:
        return "no NVIDIA driver is loaded: without such a GPU, victims run on the CPU"
    return (
        f"the NVIDIA driver {driver} is loaded, but torch for CUDA {torch.version.cuda} sees no "
        "device: check CUDA_VISIBLE_DEVICES, and that the driver is recent enough"
    )


def _clocks() -> list[Finding]:
    wall = time.get_clock_info("perf_counter").resolution
    cpu_time = time.get_clock_info("process_time").resolution
    on_cuda = torch.cuda.is_available()
    return [
        Finding("clock wall", True, f"resolution {wall * 1e9:.0f} ns"),
        Finding("clock cpu_time", True, f"resolution {cpu_time * 1e9:.0f} ns"),
        Finding("clock cuda_event", on_cuda, "resolution 500 ns" if on_cuda else "no CUDA device"),
    ]


def _energy(powercap: Path) -> list[Finding]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cuda"]
    findings = []
    for name, device in ((OF_CPU, "cpu"), *((OF_GPU, device) for device in cuda)):
        _, reasons = available_counters(device, powercap=powercap)
        detail = reasons.get(name, "readable")
        findings.append(Finding(f"energy {name} on {device}", name not in reasons, detail))
    return findings


def _packages() -> list[Finding]:
    return [_package(name, extra) for name, extra in EXTRAS.items()]


def _package(name: str, extra: str) -> Finding:
    if find_spec(name) is None:
        return Finding(f"package {name}", False, install(extra))
    try:
        found = version(name)
    except PackageNotFoundError:
        found = "installed, of unknown version"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(name)
    except Exception as error:  # whatever a package raises that does not fit
        why = str(error).partition("\n")[0]
        return Finding(f"package {name}", False, f"{found} is there but does not import: {why}")
    return Finding(f"package {name}", True, found)
