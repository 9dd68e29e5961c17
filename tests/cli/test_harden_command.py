"""``effattack harden``, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_module import written

from effattack.cli import main

MODULE = """
import torch
from own_exits import own_exits, small_digits
from effattack import Opaque
from effattack.hardening import load

build = own_exits

def train():
    return small_digits("train")

def heldout():
    images, labels = small_digits("heldout")
    return images[:200], labels[:200]

def hardened():
    return load(build(), "out")

def sealed():
    return Opaque(own_exits(), (1, 8, 8))
"""
TYPED = ["harden", "mine:build", "--data", "mine:train", "--heldout", "mine:heldout"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the user's own, with early exits and data in it."""
    return written(tmp_path, monkeypatch, MODULE)


@pytest.mark.slow
def test_from_a_victim_to_a_hardened_one(project: Path, capsys: pytest.CaptureFixture) -> None:
    typed = [*TYPED, "--threat", "16/255", "--train-at", "24/255", "--epochs", "5", "--out", "out"]
    assert main([*typed, "--allow", "3"]) == 0
    told = capsys.readouterr().out
    assert "epoch 5/5, loss" in told
    assert "0 s left" in told
    assert "own exits at linf:16/255, on 200 held-out inputs" in told
    assert "savings retained" in told
    use, following = told.splitlines()[-2:]
    assert use == "  def hardened(): return load(build(), 'out')"
    assert following.startswith("next: effattack run --victim mine:hardened --data TEST --eps 16/")
    files = {file.name for file in (project / "out").iterdir()}
    assert {"weights.safetensors", "card.json", "card.md"} < files
    card = json.loads((project / "out" / "card.json").read_text())
    assert card["after"]["retained"] > card["before"]["retained"]
    assert main([*typed, "--allow", "3"]) == 0
    assert "epoch" not in capsys.readouterr().out, "the training is not done again"
    assert main([*typed, "--rate", "0.5"]) == 1
    captured = capsys.readouterr()
    assert "own exits stays as it was: " in captured.err
    assert "savings retained" in captured.out
    assert json.loads((project / "out" / "card.json").read_text()) is not None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--threat", "4"], "eps = 4 is no budget"),
        (["--threat", "4/255", "--method", "answer"], "did you mean answers"),
        (["--threat", "suffix:3"], "changes tokens, which images are not"),
        (["--threat", "4/255", "--epochs", "0"], "epochs = 0 is out of range"),
        (["--threat", "4/255", "--allow", "-1"], "--allow -1"),
    ],
)
def test_what_cannot_be_used(more: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    assert main([*TYPED, *more, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_what_has_no_gates_is_refused(capsys: pytest.CaptureFixture) -> None:
    typed = ["harden", "mine:sealed", "--data", "mine:train", "--threat", "4/255", "--out", "out"]
    assert main(typed) == 2
    assert "has no gates" in capsys.readouterr().err
