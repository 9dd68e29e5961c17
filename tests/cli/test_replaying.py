"""``effattack run --replay``: red where a change costs more, else green; nothing is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from effattack.cells import by_name
from effattack.cli import main

MODELS = """
from toys import LinearSaver, grey_images

def build():
    return LinearSaver(DOUBT, seed=1)

def data():
    images = grey_images(12, seed=3)
    return images, LinearSaver(DOUBT, seed=1)(images).argmax(1)
"""
VICTIM = ["run", "--victim", "replayed_models:build"]
FULL = [*VICTIM, "--data", "replayed_models:data", "--attack", "Slowdown", "--eps", "2/255"]
REPLAY = [*VICTIM, "--replay", "effattack-report/corpus"]


def write(doubt: float) -> None:
    """The user's models, as a process of its own would import them."""
    Path("replayed_models.py").write_text(MODELS.replace("DOUBT", str(doubt)))
    sys.modules.pop("replayed_models", None)
    by_name._kept.clear()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    write(0.5)
    assert main([*FULL, "--quiet"]) == 0
    return tmp_path


def test_red_where_a_change_costs_more_and_green_without_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime for path in project.rglob("*") if path.suffix != ".py"}
    assert main([*REPLAY, "--json"]) == 0
    out, errors = capsys.readouterr()
    found = json.loads(out)
    assert "replayed, not attacked" in errors
    assert found["report"] is None
    assert len(found["replayed"]) == 1
    (macs,) = (row["macs"] for row in found["scores"] if row["kind"] == "union")
    limit = ["--fail-above", f"macs={macs:g}", "--quiet"]
    assert main([*REPLAY, *limit]) == 0
    assert capsys.readouterr().out == "replayed, not attacked\n"
    write(2.5)
    assert main([*REPLAY, *limit]) == 1
    assert "above the limit" in capsys.readouterr().out
    write(0.5)
    assert main([*REPLAY, *limit]) == 0
    after = {path: path.stat().st_mtime for path in project.rglob("*") if path.suffix != ".py"}
    assert after == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--save", "x", "--samples", "3"], "leave --samples, --save out"),
        (["--compare", "x"], "leave --compare out"),
        (["--fail-above", "latency_ratio=2"], "a replay times nothing, and latency_ratio"),
        (["--replay", "nowhere"], "it is no file"),
        (["--replay", "."], "holds no corpus (.npz): effattack run --out DIR writes"),
    ],
)
def test_what_a_replay_cannot_use(
    options: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*REPLAY, *options]) == 2
    assert told in capsys.readouterr().err


def test_a_corpus_names_no_code(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--replay", "effattack-report/corpus"]) == 2
    assert "the corpus holds inputs of toy: name what is judged on them" in capsys.readouterr().err
