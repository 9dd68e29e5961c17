"""The tables on the pages are those that the kept rows make."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a script is on the path when it runs."""
    monkeypatch.syspath_prepend(str(DOCS.parent / "benchmarks"))


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_graphs_by_path_as_measured() -> None:
    script = import_module("graphs")
    rows = script.kept(script.ROWS)
    assert sorted(row["graph"] for row in rows) == ["kinships", "nations", "umls"]
    assert script.table(rows) in page("graphs")


def test_sensor_and_camera_as_measured() -> None:
    script = import_module("machine_watch")
    assert script.markdown(script.table(script.kept(script.ROWS))) in page("multimodal")


@pytest.fixture
def questions() -> ModuleType:
    return import_module("multimodal_strength")


def test_attacks_on_images_with_questions_as_measured(questions: ModuleType) -> None:
    rows, text = questions.kept(questions.ROWS), page("multimodal")
    assert {row["victim"] for row in rows} == {*questions.VICTIMS}
    for name in questions.VICTIMS:
        found = questions.grid([row for row in rows if row["victim"] == name], "agreement")
        found["attack"] = [f"`{attack}`" for attack in found.attack]
        both = questions.THREATS[-1]
        found.columns = [
            "both, of the first two" if head == both else f"`{head}`" if ":" in head else head
            for head in found.columns
        ]
        assert questions.markdown(found) in text, name


def test_which_part_is_cheaper_as_measured(questions: ModuleType) -> None:
    rows, lines = questions.kept(questions.ROWS), page("multimodal").split("\n")
    for name in questions.VICTIMS:
        own = {
            (row["threat"], row["attack"]): row["success"] for row in rows if row["victim"] == name
        }
        cells = []
        for part in (questions.IMAGE, questions.QUESTION):
            here = {attack: own[at, attack] for at, attack in own if at == part}
            controls = {a for a in here if questions.attack_class(a).kind == "control"}
            cells.append(max(here[attack] for attack in here.keys() - controls))
            cells.append(max(here[attack] for attack in controls))
        told = " | ".join(f"{cell:.3f}" for cell in cells)
        cheaper = "the image" if cells[0] > cells[2] else "the question"
        assert f"| `{name}` | {told} | {cheaper} |" in lines


@pytest.mark.parametrize(
    ("name", "where"),
    [("debate", "graphs"), ("denoising", "mechanisms"), ("splatting", "mechanisms")],
)
def test_systems_beside_the_registry_as_measured(name: str, where: str) -> None:
    script, rows = import_module(name), import_module("kept_rows")
    assert script.markdown(script.table(rows.kept(script.ROWS))) in page(where)
