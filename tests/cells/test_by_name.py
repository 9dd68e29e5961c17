"""Victims by name: each is loaded once by a process, as long as there is room for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from faulty import TOY
from toys import LinearSaver

from effattack.cells import by_name
from effattack.victim import load_victim


class Second(LinearSaver):
    """Another victim."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "second"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the victims that were loaded, in order."""
    names: list[str] = []

    def noting(name: str, *beside: str) -> object:
        names.append(name)
        return load_victim(name, *beside)

    monkeypatch.setattr(by_name, "load_victim", noting)
    return names


def test_planning_and_every_cell_share_a_victim(tmp_path: Path, loaded: list[str]) -> None:
    small = replace(TOY, victims=("toys:LinearSaver", "test_by_name:Second"), samples=4, timed=1)
    small.run(tmp_path)
    assert loaded == [*small.victims]


def test_a_new_plan_looks_at_the_victim_anew(tmp_path: Path, loaded: list[str]) -> None:
    small = replace(TOY, samples=4)
    for out in ("one", "two"):
        small.run(tmp_path / out)
    assert len(loaded) == 2


def test_what_there_is_no_room_for_is_loaded_again(
    tmp_path: Path, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_name, "MOST", 0)
    small = replace(TOY, victims=("toys:LinearSaver", "test_by_name:Second"), samples=4)
    small.run(tmp_path)
    assert len(loaded) > len(small.victims)
