"""``effattack certify``: what it says, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_module import written

from effattack.cli import main

MODULE = """
import torch
from prompts import TokenExits, some_prompts
from toys import LinearSaver, grey_images

def build():
    return LinearSaver()

def larger():
    victim = LinearSaver()
    victim.max_macs = 1000
    return victim

def data():
    return grey_images(10), torch.arange(10) % 2

def words():
    return TokenExits()

def prompts():
    return some_prompts(5), torch.zeros(5).long()
"""
BASE = ["certify", "mine:build", "--data", "mine:data", "--images", "4"]
NOISY = [*BASE, "--sigma", ".1", "--threat", "l2:.1", "--samples", "200"]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, monkeypatch, MODULE)


def test_it_says_what_is_certified_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NOISY, "--threat", "linf:1/255"]) == 0
    said = capsys.readouterr().out
    assert "toy_smoothed at l2:0.1, certificate by smoothing, 4 images" in said
    assert "toy_smoothed at linf:1/255" in said
    assert "error            probability 0.001, over all 4 images together" in said
    assert "s, 301 passes per image" in said


def test_json_has_every_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NOISY, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (one,) = told["certificates"]
    assert told["schema"] == 1
    assert len(one["most"]) == len(one["clean"]) == len(one["p99"]) == 4
    kept = sum(one["ceiling"]) - sum(one["most"])
    assert one["certified_retained"] == pytest.approx(
        kept / (sum(one["ceiling"]) - sum(one["clean"]))
    )


def test_limits_decide_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NOISY, "--fail-below", "certified_retained=0.01"]) == 0
    wide = [*NOISY, "--threat", "l2:.4"]
    assert main([*wide, "--fail-below", "certified_retained=0.999"]) == 1
    assert "certified_retained is" in capsys.readouterr().out
    assert main([*wide, "--fail-above", "certified_factor=1.0001"]) == 1
    assert main([*NOISY, "--fail-below", "savings_retained=0.5"]) == 2
    assert "savings_retained is of attacks" in capsys.readouterr().err
    assert main([*BASE, "--fail-below", "certified_retained=0.5"]) == 3
    assert "a cap says nothing of savings" in capsys.readouterr().err


def test_a_cap_needs_the_victim_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "--kind", "cap"]) == 0
    assert "retained         not stated: name the victim without the cap" in capsys.readouterr().out
    limit = ["--fail-below", "certified_retained=0.5"]
    assert main([*BASE, "--kind", "cap", "--uncapped", "mine:larger", *limit]) == 0


def test_prompts_are_enumerated(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["certify", "mine:words", "--data", "mine:prompts", "--threat", "swap:1"]
    assert main(words) == 0
    assert "certificate by enumeration, 5 prompts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "smoothing"], "adds no noise"),
        (["--kind", "smoothin"], "unknown certificate 'smoothin'"),
        (["--sigma", "0"], "give a positive number"),
        (["--sigma", ".1", "--samples", "5"], "give at least"),
        (["--sigma", ".1", "--alpha", "2"], "give a probability"),
        (["--kind", "enumeration"], "has no list"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BASE, *options]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
