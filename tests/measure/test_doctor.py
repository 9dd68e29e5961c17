"""The diagnosis: what is found, what is missing, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from effattack.measure import doctor
from effattack.measure.doctor import EXTRAS, Finding, diagnose


def by_name() -> dict[str, Finding]:
    return {finding.what: finding for finding in diagnose()}


def test_every_finding_is_named_once_and_explained() -> None:
    findings = diagnose()
    assert len({finding.what for finding in findings}) == len(findings)
    assert all(finding.detail and "\n" not in finding.detail for finding in findings)


def test_what_is_always_there() -> None:
    found = by_name()
    for what in ("python", "torch", "device cpu", "clock wall", "clock cpu_time"):
        assert found[what].ok
    assert torch.__version__ in found["torch"].detail
    assert {f"package {name}" for name in EXTRAS} <= set(found)


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    found = by_name()
    assert found["package torchao"] == Finding(
        "package torchao", False, "pip install '.[quant]' in a clone of effattack"
    )
    assert found["package zeus"].detail == "pip install '.[energy]' in a clone of effattack"


def test_a_package_that_is_there_shows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"numpy": "quant", "json": "quant"})
    found = by_name()
    assert found["package numpy"] == Finding(
        "package numpy", True, sys.modules["numpy"].__version__
    )
    assert found["package json"] == Finding("package json", True, "installed, of unknown version")


def test_a_package_that_does_not_import_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "unfit.py").write_text("raise ImportError('no such symbol in torch')\n")
    monkeypatch.setattr(doctor, "EXTRAS", {"unfit": "quant"})
    found = by_name()["package unfit"]
    assert not found.ok
    assert found.detail.endswith("does not import: no such symbol in torch")


def test_energy_counters_are_found_or_explained(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "9"), ("energy_uj", "1")):
        (zone / name).write_text(text)
    there = Finding("energy rapl on cpu", True, "readable")
    assert there in diagnose(powercap=tmp_path)
    (missing,) = (f for f in diagnose(powercap=tmp_path / "none") if f.what == there.what)
    assert not missing.ok
    assert "no CPU package" in missing.detail


def test_cuda_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {})  # none is imported while torch tells of devices
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Fake GPU {index}")
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: "580.95")
    monkeypatch.setitem(sys.modules, "zeus", None)
    found = by_name()
    assert found["device cuda:1"] == Finding("device cuda:1", True, "Fake GPU 1, driver 580.95")
    assert found["clock cuda_event"].ok
    assert "'.[energy]'" in found["energy nvml on cuda:0"].detail


@pytest.mark.parametrize(
    ("built", "driver", "cause"),
    [
        (False, None, "built without CUDA"),
        (True, None, "no NVIDIA driver is loaded"),
        (True, "580.95", "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_missing_cuda_device_has_a_cause(
    monkeypatch: pytest.MonkeyPatch, built: bool, driver: str | None, cause: str
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(doctor, "nvidia_driver", lambda: driver)
    assert cause in doctor.why_no_cuda()
