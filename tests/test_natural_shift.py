"""The tables of natural shift and of generated inputs are those that the kept rows make."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of a script is on the path when it runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_natural_shift_stands_beside_the_adversary_as_measured() -> None:
    script, page = (
        import_module("natural_shift"),
        (ROOT / "docs" / "accuracy.md").read_text("utf-8"),
    )
    rows = import_module("kept_rows").kept(script.ROWS)
    for domain in script.DOMAINS:
        assert script.markdown(script.table(domain, rows)) in page
    wanted = [one for domain in script.DOMAINS for one in script.asked(domain)]
    assert sorted(script.Asked(*(row[key] for key in script.Asked._fields)) for row in rows) == (
        sorted(wanted)
    ), "every row, once"
    assert all(row["work"] <= row["ceiling"] for row in rows)


def test_the_worst_mixture_is_chosen_by_other_inputs() -> None:
    script = import_module("natural_shift")
    rows = import_module("kept_rows").kept(script.ROWS)
    before = script.table("texts", rows)[script.MIXTURE].tolist()
    moved = [
        {**row, "work": 10 * row["work"]}
        if row["part"] == script.OTHERS and row["kind"] == "word_order"
        else row
        for row in rows
    ]
    after = script.table("texts", moved)[script.MIXTURE].tolist()
    assert all("word_order" in cell.split(",")[0] for cell in after)
    assert before != after


def test_scores_on_generated_inputs_as_measured() -> None:
    script = import_module("imitated_inputs")
    page = (ROOT / "docs" / "bring_your_own.md").read_text()
    assert script.markdown(script.table(script.kept(script.ROWS))) in page
