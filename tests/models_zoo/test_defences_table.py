"""``benchmarks/defences.py``: what verdicts mean, and that finished cells are not made again."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from toys import LinearSaver

from effattack.victim.entry import Entry, bits, random_flip
from effattack.victim.smoothed import Smoothed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def table() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import defences
    finally:
        sys.path.remove(str(BENCHMARKS))
    return defences


@pytest.fixture
def row(table: Any) -> Any:
    return table.Row(
        name="a defence",
        victim="v",
        accuracy=(1.0, 0.9),
        agreement=0.9,
        clean_macs=(2e6, 3e6),
        max_macs=(10e6, 10e6),
        flagged=None,
        undefended=0.2,
        claimed=0.9,
        adaptive=0.5,
        interval=(0.4, 0.6),
        attacked_macs=6e6,
        attacked_accuracy=0.8,
    )


def test_a_verdict_is_what_the_adaptive_attack_leaves(table: Any, row: Any) -> None:
    assert row.retained == pytest.approx(4 / 7)
    assert row.won_back == pytest.approx(0.3 / 0.8)
    assert row.verdict == "falls"
    better = replace(row, adaptive=0.61, attacked_macs=5e6)
    assert better.verdict == "holds"
    assert replace(better, undefended=0.3).verdict == "falls"
    assert replace(better, clean_macs=(2e6, 1e6)).verdict == "falls", "cheaper when clean, no more"
    assert replace(row, max_macs=(10e6, 9e6)).verdict == "holds as an exact cap"
    assert replace(row, max_macs=(10e6, 11e6)).verdict == "falls"
    assert (
        "| 100% → 90% | 90% | 2.00 → 3.00 | 20% | 90% | **50%** (40% to 60%) | 57% |"
        in table._line(row)
    )
    assert "90% (4% flagged)" in table._line(replace(row, flagged=0.04))


def test_what_draws_is_judged_on_seeds_that_no_search_has_used(table: Any) -> None:
    assert not {*table.SEARCHED} & {*table.JUDGED}
    drawing = Entry(LinearSaver(), [random_flip()])
    assert [one.seed for one in table._draws(drawing, table.JUDGED)] == [*table.JUDGED]
    noisy = Smoothed(LinearSaver(), 0.1)
    assert [one.seed for one in table._draws(noisy, table.JUDGED)] == [*table.JUDGED]
    fixed = Entry(LinearSaver(), [bits(3)])
    assert table._draws(fixed, table.JUDGED) == [fixed]


def test_each_image_counts_as_its_worst(table: Any) -> None:
    victim, images = LinearSaver(), torch.rand(30, 1, 4, 4)
    ways = [images, images.flip(0), images.flip(3)]
    spent = torch.stack([victim.trace(inputs).macs for inputs in ways])
    found = victim.trace(table._worst(victim, ways)).macs
    assert found.tolist() == spent.amax(0).tolist()
    assert (found > spent[0]).any()


@pytest.mark.slow
def test_a_finished_cell_is_read_and_one_of_other_images_is_not(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = replace(table.DEFENCES[0], threat="linf:2/255")
    made = table._cell(cell, 6, tmp_path)
    assert made.max_macs[1] < made.max_macs[0]
    assert made.clean_macs[1] <= made.clean_macs[0]
    monkeypatch.setattr(table, "_row", lambda *asked: pytest.fail("made again"))
    assert table._cell(cell, 6, tmp_path) == made
    with pytest.raises(pytest.fail.Exception, match="made again"):
        table._cell(cell, 7, tmp_path)
