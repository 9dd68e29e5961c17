"""``benchmarks/tuned.py``: the page shows its rows, and what is chosen anew follows its rule."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from effattack.models_zoo.digits import digits
from effattack.victim import load_victim

ROOT = Path(__file__).parents[2]


Rows = list[dict[str, Any]]


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tuned

    return tuned


@pytest.fixture
def rows(tuned: ModuleType) -> Rows:
    """Those that are kept."""
    return import_module("kept_rows").kept(tuned.ROWS)


def test_the_page_shows_a_row_of_every_form(tuned: ModuleType, rows: Rows) -> None:
    made = [(row["victim"], row["form"], row["images"]) for row in rows]
    assert sorted(made) == sorted((form.of, form.name, form.images) for form in tuned.FORMS)
    page = (ROOT / "docs" / "tuned.md").read_text(encoding="utf-8")
    assert f"\n{tuned.markdown(tuned.table(rows))}\n" in page


def test_tuned_forms_have_the_weights_of_the_original(tuned: ModuleType, rows: Rows) -> None:
    """Folded adapters are no weights beside them, and no MACs."""
    for name in (tuned.VIT, tuned.CNN):
        victim = load_victim(name)
        folded = [row for row in rows if row["form"] == "tuned" and row["victim"] == name]
        assert [(row["weights"], row["max_macs"]) for row in folded] == [
            (tuned.weights(victim), victim.max_macs)
        ]


@pytest.mark.slow
def test_most_reference_tokens_that_cost_no_more(
    tuned: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an original on images that are not turned: as many as it has, if they are among them."""
    few = digits("heldout")[0][:40], digits("heldout")[1][:40]
    for name in ("digits", "turned_digits"):
        monkeypatch.setattr(tuned, name, lambda split: few)
    monkeypatch.setattr(tuned, "tuned", load_victim)
    monkeypatch.setattr(tuned, "SAMPLES", (58, 66, 74, 82))
    assert tuned.rule(tuned.ats_chosen_anew()) == "74 reference tokens"
    monkeypatch.setattr(tuned, "SAMPLES", (58, 66, 82))
    assert tuned.rule(tuned.ats_chosen_anew()) == "66 reference tokens"


def test_a_student_that_keeps_its_teachers_tokens_does_four_fifths_of_its_most(
    tuned: ModuleType, rows: Rows
) -> None:
    """82.1 %, as the page says: its work in closed form, at the tokens that the teacher keeps."""
    teacher = load_victim(tuned.VIT)
    (row,) = (row for row in rows if "tokens" in row["form"])
    with torch.no_grad():
        first, second = (
            1 + gate.active.sum(1).double() for gate in teacher.trace(digits("test")[0]).gates
        )
    width, all_tokens = 48, 65
    linear = {"qkv": 3 * width**2, "proj": width**2, "mlp": 8 * width**2}
    stem = 64 * 3 * 16 * width + 10 * width
    macs = stem + all_tokens * sum(linear.values()) + 2 * all_tokens**2 * width
    for before, kept in ((torch.tensor(float(all_tokens)), first), (first, second)):
        scores = before * linear["qkv"] + before**2 * width
        macs = macs + scores + kept * (before * width + linear["proj"] + linear["mlp"])
    share = macs.mean().item() / row["max_macs"]
    assert share == pytest.approx(0.821, abs=5e-4)
    assert row["macs"] / row["max_macs"] == pytest.approx(share, abs=0.01)


def test_units_in_common_by_hand(tuned: ModuleType) -> None:
    """All with itself; with a victim whose first exit always answers, none."""
    victim, other = (load_victim("digits_cnn_early_exit") for _ in range(2))
    images = digits("heldout")[0][:40]
    assert tuned.in_common(victim, victim, images) == 1
    tuned.expect_thresholds(other).thresholds = 0.0
    assert tuned.in_common(victim, other, images) == 0
    tuned.expect_thresholds(other).thresholds = 1.0
    passed = sum(g.active.sum().item() for g in victim.trace(images).gates)
    assert tuned.in_common(victim, other, images) == pytest.approx(passed / (3 * 40))
    assert 0 < passed < 3 * 40
