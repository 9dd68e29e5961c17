"""``effattack export``, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_module import written
from toys import import_or_skip

from effattack.cli import main

import_or_skip("onnxruntime")
import_or_skip("onnxscript")

MODULE = """
import torch
from toys import SHAPE, LinearSaver, noise_images
from effattack.models_zoo import Cascade

def build():
    torch.manual_seed(1)
    models = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for _ in range(2)]
    return Cascade(models, 0.45, SHAPE, name="mine")

def data():
    return noise_images(40, 0, SHAPE), torch.arange(40) % 2

def black():
    return torch.zeros(2, *SHAPE), torch.zeros(2).long()

no_chain = LinearSaver
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with a cascade and data in it."""
    return written(tmp_path, monkeypatch, MODULE)


@pytest.mark.slow
def test_a_cascade_of_ones_own(project: Path, capsys: pytest.CaptureFixture) -> None:
    typed = ["export", "mine:build", "--onnx", "out/model.onnx"]
    assert main([*typed, "--data", "mine:data"]) == 0
    first, compared, following = capsys.readouterr().out.splitlines()
    assert first.startswith("out/model.onnx: mine, ONNX opset 18, one input at a time; decisions")
    assert compared.startswith("compared on 40 images: the same answers and decisions; ")
    assert compared.endswith(" stopped early, and nothing behind ran")
    assert following == "next: effattack run --victim out/model.onnx --twin mine:build"
    assert [file.name for file in (project / "out").iterdir()] == ["model.onnx"]
    assert main([*typed, "--data", "mine:black"]) == 0
    assert "none stopped early, so whether the rest is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["mine:no_chain", "--onnx", "m.onnx"], "toy does not say what it is made of"),
        (["digits_vit_ats", "--onnx", "m.onnx"], "digits_vit_ats does not say what it is made of"),
        (["exam_skip", "--onnx", "m.onnx"], "exam_skip does not say what it is made of"),
        (["mine:build", "--onnx", "model"], "end its name in .onnx"),
        (["digits_cnn_early_exits", "--onnx", "m.onnx"], "did you mean digits_cnn_early_exit"),
    ],
)
def test_what_cannot_be_exported(
    typed: list[str], told: str, project: Path, capsys: pytest.CaptureFixture
) -> None:
    data = ["--data", "mine:data"] if typed[0].startswith("mine") else []
    assert main(["export", *typed, *data]) == 2
    assert told in capsys.readouterr().err
    assert not list(project.glob("m*.onnx"))
