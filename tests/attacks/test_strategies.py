"""``benchmarks/strategies.py``: what looks for the best known point keeps the best it has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import LinearSaver, grey_images

from effattack.attacks import AutoSlow, build

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    "options",
    ["", "by='adam'", "wants='fine'", "wants='states', by='adam'", "refined=True"],
)
def test_more_rounds_lose_nothing(options: str) -> None:
    victim, images = LinearSaver(), grey_images(30)
    found = []
    for rounds in (1, 3):
        text = f"strategies:Rounds({options and options + ', '}rounds={rounds}, steps=6)"
        attack = build(text, victim, 3 / 255)
        assert attack.gradients == 6 * rounds
        found.append(victim.trace(attack(images)).macs)
    clean = victim.trace(images).macs
    assert (found[0] >= clean).all()
    assert (found[0] > clean).any()
    assert (found[1] >= found[0]).all()


def test_ten_seeds_find_what_each_of_them_finds() -> None:
    victim, images = LinearSaver(), grey_images(20)
    attack = build("strategies:Seeds(count=2)", victim, 3 / 255)
    assert attack.gradients == 2 * AutoSlow(victim).gradients
    together = victim.trace(attack(images)).macs
    for member in attack.members:  # type: ignore[attr-defined]
        assert (together >= victim.trace(member(images)).macs).all()
    assert not torch.equal(together, victim.trace(images).macs)
