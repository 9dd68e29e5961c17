"""Attacks and threats of other packages: named as ours are, wherever a name is read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import LinearSaver, grey_images

from effattack.attacks import NearUniform, Slowdown, attack_class, build, names, text_of
from effattack.errors import UsageError
from effattack.threats import parse_threat

MINE = '''
from effattack.attacks.base import GradientAttack
from effattack.attacks.objectives import MarginHinge
from effattack.attacks.searches.projected import ProjectedGradient, cosine
from effattack.threats import Linf


class Mine(GradientAttack):
    """Ten lines."""

    steps: int = 3
    first: float = 1.0

    def composed(self):
        return MarginHinge(), ProjectedGradient(self.steps, cosine(self.first))


class Coarse(Linf):
    """So many grey levels."""

    def __init__(self, levels: int) -> None:
        super().__init__(levels / 255)

    @classmethod
    def read(cls, size):
        return cls(int(size))


no_attack = dict
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in the current folder, installed with entry points."""
    (tmp_path / "abroad.py").write_text(MINE)
    info = tmp_path / "abroad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abroad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[effattack.attacks]\nMine = abroad:Mine\n[effattack.threats]\ncoarse = abroad:Coarse\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("abroad", None)


@pytest.mark.parametrize("text", ["Mine(steps=5)", "abroad:Mine(steps=5)"])
def test_an_attack_from_outside(text: str, package: Path) -> None:
    attack = build(text, LinearSaver(), 4 / 255, seed=2)
    assert attack.name == "Mine(steps=5)"
    assert attack.settings == {"steps": 5, "first": 1.0}
    assert (attack.search.steps, attack.eps, attack.seed) == (5, 4 / 255, 2)
    ours = Slowdown(LinearSaver(), 4 / 255)
    assert attack(grey_images(6)).shape == ours(grey_images(6)).shape
    assert text_of(attack) == "abroad:Mine(steps=5, threat='linf:4/255')"
    again = build(text_of(attack), LinearSaver(), seed=2)
    assert (again.name, str(again.threat)) == (attack.name, str(attack.threat))
    assert "Mine" in names()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Mine(step=5)", r"did you mean .*steps.*its options: threat, steps, first"),
        ("abroad:Mine(steps='x')", r"steps = 'x': give a whole number"),
        ("abroad:no_attack", r"no class of effattack.attacks.Attack"),
        ("abroad:Nobody", r"has no callable 'Nobody'"),
        ("nowhere:Mine", r"cannot import 'nowhere'"),
        ("Mien", r"did you mean Mine"),
    ],
)
def test_names_from_outside_that_are_none(text: str, message: str, package: Path) -> None:
    with pytest.raises(UsageError, match=message):
        attack_class(text)


@pytest.mark.parametrize("text", ["coarse:5", "abroad:Coarse(levels=5)"])
def test_a_threat_from_outside(text: str, package: Path) -> None:
    threat = parse_threat(text)
    assert threat.eps == 5 / 255
    attack = build(f"Slowdown(threat={text!r}, steps=2)", LinearSaver())
    change = attack(grey_images(6)) - grey_images(6)
    assert 0 < change.abs().max() <= 5 / 255 + 1e-6


@pytest.mark.slow
def test_other_processes_find_it_in_the_current_folder(package: Path) -> None:
    command = [sys.executable, "-m", "effattack", "run", "--victim", "digits_cnn_early_exit"]
    command += ["--attack", "abroad:Mine(steps=2)", "--attack", "Mine(threat='coarse:3')"]
    command += ["--samples", "4", "--workers", "1", "--json", "--out", str(package / "out")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    rows = {(row["attack"], round(255 * row["eps"])) for row in json.loads(found.stdout)["scores"]}
    assert {("Mine(steps=2)", 8), ("Mine", 3)} <= rows


@pytest.mark.parametrize(
    "text",
    [
        *("clean", "noise(threat='l2:1')", "Slowdown(steps=20, threat='patch:2@1,1')"),
        *("uniform", "torchattacks.PGD(steps=3, threat='linf:2/255')"),
    ],
)
def test_the_text_of_an_attack_makes_it_again(text: str) -> None:
    victim = LinearSaver()
    attack = build(text, victim)
    again = build(text_of(attack), victim)
    assert text_of(again) == text_of(attack) == text
    assert repr(again) == repr(attack)


def test_no_budget_where_none_is_kept() -> None:
    with pytest.raises(UsageError, match="its options: none"):
        build("uniform(threat='box')", LinearSaver())
    with pytest.raises(UsageError, match="uniform keeps to no budget"):
        NearUniform(LinearSaver(), 4 / 255)
    assert torch.equal(build("clean", LinearSaver(), 4 / 255)(grey_images(2)), grey_images(2))
    assert json.dumps(build("clean", LinearSaver()).settings) == "{}"
