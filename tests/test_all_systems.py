"""The table of all systems in docs/mechanisms.md is the one that the kept scores make."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from effattack.registry import VICTIMS, entries

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mechanisms.md"
pytestmark = pytest.mark.slow


@pytest.fixture
def all_systems(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import all_systems

    return all_systems


@pytest.fixture
def baseline(all_systems: ModuleType) -> dict[str, Any]:
    return json.loads(all_systems.BASELINE.read_text(encoding="utf-8"))


def table_on(page: Path, head: str) -> list[str]:
    """Its lines."""
    lines = page.read_text(encoding="utf-8").split("\n")
    (first,) = (number for number, line in enumerate(lines) if line.startswith(head))
    return lines[first : lines.index("", first)]


def test_the_page_shows_what_the_command_makes(all_systems: ModuleType, tmp_path: Path) -> None:
    """But for victims that the baseline does not know yet: those may come and go."""
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{all_systems.HEAD} stale |\n\nBehind.\n", encoding="utf-8")
    all_systems.put(page, all_systems.HEAD, all_systems.table())
    made, shown = (table_on(place, all_systems.HEAD) for place in (page, PAGE))
    known = [[line for line in lines if all_systems.MISSING not in line] for lines in (made, shown)]
    assert known[0] == known[1], "run benchmarks/all_systems.py --table docs/mechanisms.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n\n| ")
    assert text.endswith("|\n\nBehind.\n")
    assert len(made) > 40


def test_savings_are_those_of_the_baseline(
    all_systems: ModuleType, baseline: dict[str, Any]
) -> None:
    """Taken back is what its scores say is not retained; constant victims state none."""
    lines = {
        line.system: line
        for line in all_systems.registered(all_systems.Baseline.load(all_systems.BASELINE))
    }
    for name, record in baseline["victims"].items():
        (union,) = (each for each in record["series"] if each["kind"] == "union")
        line = lines[f"{record['family']}: `{name}`"]
        constant = all(each["kind"] != "compute" for each in record["series"])
        assert (line.decides == all_systems.CONSTANT) == constant
        back = re.search(r"\*\*(-?\d+) %\*\* of the savings", line.work)
        if back is None:
            assert constant
        else:
            retained = union["scores"]["savings_retained"]
            assert int(back[1]) == pytest.approx(100 * (1 - retained), abs=0.51)


def test_a_victim_that_is_not_in_the_baseline_says_so(
    all_systems: ModuleType,
    baseline: dict[str, Any],
    tmp_path: Path,
) -> None:
    del baseline["victims"]["digits_vit_ats"]
    shorter = tmp_path / "quick.json"
    shorter.write_text(json.dumps(baseline), encoding="utf-8")
    lines = list(all_systems.registered(all_systems.Baseline.load(shorter)))
    (line,) = (line for line in lines if line.system == "token sparsification: `digits_vit_ats`")
    assert (line.work, line.equals, line.control) == ("68 % clean", all_systems.MISSING, "–")
    ours = [e for e in entries(VICTIMS).values() if e.value.startswith(all_systems.ZOO)]
    assert len(lines) == len(ours)


def test_nobody_decides_by_a_class_that_is_gone(all_systems: ModuleType) -> None:
    from effattack.victim import Victim

    def below(kind: type) -> set[str]:
        return {kind.__name__}.union(*map(below, kind.__subclasses__()))

    for entry in entries(VICTIMS).values():
        entry.load()
    assert all_systems.DECIDES.keys() <= below(Victim)


def test_of_every_victim_it_is_told_who_decides(all_systems: ModuleType) -> None:
    lines = all_systems.registered(all_systems.Baseline.load(all_systems.BASELINE))
    assert [line.system for line in lines if line.decides == "–"] == []


def test_first_sentences(all_systems: ModuleType) -> None:
    text = """It writes ``a`` to b.c, and
    stops. Or does not.

    Args: none.
    """
    assert all_systems.summary(text) == "It writes `a` to b.c, and stops"
    assert all_systems.inputs_of("effattack.models_zoo.text.sums: 12 sums") == "sums"
    assert all_systems.inputs_of("digits enlarged to 3 x 32 x 32: 9 images") == "digits"
