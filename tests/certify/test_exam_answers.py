"""The exam's answers, as they are shipped: they hold, they are solved, they are no trivial ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from effattack.results.records.record import Record
from effattack.runs.records.bench import Bench
from effattack.runs.records.checking import verify

FOLDER = Path(__file__).parents[2] / "reports" / "exam"
RECORDS = sorted(FOLDER.glob("*.record"))

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

every_answer = pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)


def test_three_victims_and_three_budgets_each() -> None:
    victims = [path.name.partition(".")[0] for path in RECORDS]
    assert sorted(set(victims)) == ["exam_cascade", "exam_exit", "exam_skip"]
    assert [victims.count(name) for name in sorted(set(victims))] == [3, 3, 3]


@every_answer
def test_what_was_proven_agrees_with_the_witnesses(path: Path) -> None:
    record, proven = Record.load(path), pd.read_csv(path.with_suffix(".csv"))
    assert list(proven["index"]) == list(record.indices)
    assert len(proven) == 100
    assert list(proven.clean) == record.claims["clean_macs"]
    assert list(proven.found) == record.claims["macs"]
    assert (proven.found <= proven.bound).all()
    assert (proven.found == proven.bound).equals(proven.status == "solved")
    assert (proven.status == "solved").mean() >= 0.95


@every_answer
def test_the_optimum_takes_back_some_and_leaves_some(path: Path) -> None:
    record = Record.load(path)
    assert 0.2 <= record.rows.success() <= 0.8


@pytest.mark.slow
@every_answer
def test_witnesses_can_be_counted_again(path: Path) -> None:
    record = Record.load(path)
    assert verify(record, Bench()).success == pytest.approx(record.rows.success())


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import exam

    yield exam
    for name in ("exam", "strength", "tables"):
        sys.modules.pop(name, None)


class TestGrading:
    proven = pd.DataFrame({"clean": [10.0, 10.0, 20.0], "bound": [30.0, 20.0, 20.0]})

    def samples(self, *macs: float) -> pd.DataFrame:
        clean = {"attack": "clean", "sample": [0, 1, 2], "macs": [10.0, 10.0, 20.0]}
        attacked = {"attack": "mine", "sample": [0, 1, 2], "macs": macs}
        return pd.concat([pd.DataFrame(clean), pd.DataFrame(attacked)], ignore_index=True)

    def test_the_share_of_what_can_be_gained(self, benchmark: Any) -> None:
        grades = benchmark.graded(self.samples(30.0, 10.0, 20.0), self.proven)
        assert list(grades.index) == ["mine"]
        assert grades.share.item() == pytest.approx(20 / 30)
        assert grades.reached.item() == pytest.approx(2 / 3)

    def test_nothing_ends_above_the_optimum(self, benchmark: Any) -> None:
        with pytest.raises(AssertionError, match="above the optimum"):
            benchmark.graded(self.samples(30.0, 20.0, 21.0), self.proven)

    def test_answers_of_other_inputs_grade_nobody(self, benchmark: Any) -> None:
        other = self.proven.assign(clean=[10.0, 11.0, 20.0])
        with pytest.raises(AssertionError, match="other inputs"):
            benchmark.graded(self.samples(30.0, 20.0, 20.0), other)

    def test_two_hundred_gradients_whatever_a_step_takes(self, benchmark: Any) -> None:
        victim = benchmark.load_victim("exam_exit")
        names = [
            benchmark.budgeted(name, victim, "linf:8/255")
            for name in ("ILFO", "PGDMax", "AutoSlow", "Slowdown(steps=50)", "QueryAttack")
        ]
        steps = ["ILFO(steps=200)", "PGDMax(steps=66)"]
        assert names == [*steps, "AutoSlow", "Slowdown(steps=50)", "QueryAttack"]
