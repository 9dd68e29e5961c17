"""Whoever did not install an extra is told its name in one line, where its package is needed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from toys import LinearSaver, embedded, grey_images

from effattack.attacks import build
from effattack.errors import EffattackError, install
from effattack.measure.counters import GpuCounter
from effattack.measure.doctor import EXTRAS, diagnose
from effattack.measure.serving import Server, simulate
from effattack.models_zoo.generation.gguf_files import from_gguf
from effattack.models_zoo.quantization import llm_int8
from effattack.models_zoo.quantization.quantized import Quantized
from effattack.runs.executors.ray import Ray
from effattack.victim.deployed import exporting, onnx
from effattack.victim.endpoint.tokenizers import FromFile

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
NOWHERE = Path("nowhere")


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Linear(4, 2))


def in_eight_bits() -> None:
    llm_int8._bitsandbytes.cache_clear()
    llm_int8.LLMInt8(small(), (1, 4, 4))


def export() -> None:
    victim = embedded("digits_cnn_early_exit")
    exporting.export(victim, NOWHERE.resolve(), victim.example(1))


USES: dict[str, Callable[[], object]] = {
    "torchattacks": lambda: build("torchattacks.PGD", LinearSaver())(grey_images(2)),
    "torchao": lambda: Quantized(small(), (1, 4, 4)),
    "bitsandbytes": in_eight_bits,
    "zeus": lambda: GpuCounter(torch.device("cuda")),
    "ray": lambda: Ray().check("cpu", timed=False),
    "simpy": lambda: simulate(lambda images, attacked: 1.0, Server(1, 0.0), rate=0.1, requests=2),
    "onnx": lambda: onnx(NOWHERE),
    "onnxruntime": lambda: onnx(NOWHERE),
    "onnxscript": export,
    "tokenizers": lambda: FromFile(NOWHERE),
    "gguf": lambda: from_gguf(NOWHERE),
}
"""What first needs each package. That of PDF is in ``tests/reporting/test_figures.py``; a model of
``transformers`` is never there without its package."""


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed, what is imported already included."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)


def test_every_package_of_every_extra_is_known() -> None:
    declared = {
        re.split("[<>=]", requirement)[0]: extra
        for extra, requirements in PROJECT["optional-dependencies"].items()
        for requirement in requirements
        if extra != "all"
    }
    assert declared == EXTRAS
    assert set(EXTRAS) - set(USES) == {"cairosvg", "transformers"}


def test_all_is_every_extra() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    extras = {*EXTRAS.values()}
    assert {*everything.removeprefix("effattack[").removesuffix("]").split(",")} == extras


@pytest.mark.parametrize("package", sorted(USES))
def test_where_it_is_needed_one_line_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(package, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EffattackError) as told:
        USES[package]()
    line = str(told.value)
    assert "\n" not in line
    assert line.count(install(EXTRAS[package])) == 1


def test_the_doctor_names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("effattack.measure.doctor.find_spec", lambda name: None)
    found = {finding.what: finding for finding in diagnose()}
    for package, extra in EXTRAS.items():
        assert found[f"package {package}"] == (f"package {package}", False, install(extra))
