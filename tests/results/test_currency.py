"""Another count than MACs judges: a decoder whose passes move while its MACs do not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import toys
from hand_made import samples

from effattack import evaluate
from effattack.errors import MeasurementError, UsageError
from effattack.results.baselines import Baseline
from effattack.results.changes import compare
from effattack.results.evaluation import Evaluation
from effattack.results.frame import arranged
from effattack.results.limits import judge, parse_limit
from effattack.results.scores import score_table
from effattack.results.selfchecks import check_scores

CLEAN, CEILING = [2.0, 4.0, 6.0, 8.0] * 2, [10.0, 12.0, 14.0, 16.0] * 2
"""Passes; the longer a prompt, the fewer tokens fit behind it."""


def rows(attack: str, passes: list[float], **columns: object) -> pd.DataFrame:
    """Eight prompts under an attack on a suffix of ten tokens; every one costs 100 MACs."""
    frame = samples(attack, [100.0] * 8, [100.0] * 8, 200.0, threat="suffix", eps=10.0, edits=10)
    told = {
        "victim": "decoder",
        "currency": "passes",
        "passes": passes,
        "clean_passes": CLEAN,
        "max_passes": CEILING,
    }
    return frame.assign(**{**told, **columns})


def clean() -> pd.DataFrame:
    return rows("clean", CLEAN).assign(threat="none", eps=0.0, edits=0)


LONGER = [10.0, 4.0, 6.0, 16.0] * 2
"""8 passes more for the first and the last of four."""


def test_the_currency_judges_and_macs_stand_beside() -> None:
    row = score_table(pd.concat([clean(), rows("Slowdown", LONGER)])).iloc[-1]
    assert (row.attack, row.threat, row.eps, row.currency) == ("union", "suffix", 10.0, "passes")
    assert row.attack_success == pytest.approx((36 - 20) / (52 - 20))
    assert row.savings_retained == pytest.approx(0.5)
    assert row.equals_n_requests == pytest.approx(36 / 20)
    assert (row.work, row.clean_work, row.max_work) == (9, 5, 13)
    assert (row.macs, row.macs_ratio, row.max_macs, row.reachable) == (100, 1, 200, 16)
    assert row.found_by == "Slowdown found 4 of 8"


def test_every_input_counts_at_the_row_with_the_most_passes() -> None:
    """A row of fewer passes takes none back, however many MACs it executes."""
    other = rows("DeepSloth", [2.0, 12.0, 2.0, 2.0] * 2, macs=150.0)
    union = score_table(pd.concat([clean(), rows("Slowdown", LONGER), other])).iloc[-1]
    assert union.work == pytest.approx((10 + 12 + 6 + 16) / 4)
    assert union.macs == pytest.approx((100 + 150 + 100 + 100) / 4)


def test_the_ceiling_of_a_union_is_that_of_the_asked_budget() -> None:
    small = rows("Slowdown", LONGER, eps=5.0, edits=5, max_passes=[16.0] * 8)
    large = rows("DeepSloth", CLEAN, max_passes=[20.0] * 8)
    unions = score_table(pd.concat([clean(), small, large])).query("kind == 'union'")
    assert dict(zip(unions.eps, unions.max_work, strict=True)) == {5.0: 16, 10.0: 20}
    assert unions.work.tolist() == [9, 9], "five tokens are inside ten"


def test_a_limit_speaks_of_what_judges() -> None:
    table = score_table(pd.concat([clean(), rows("Slowdown", LONGER)]))
    (verdict,) = judge(table, [parse_limit("savings_retained=0.6", fail_below=True)])
    assert not verdict.passed
    assert "moved the passes per input 5 → 9 of at most 13" in verdict.message
    unknown = rows("Slowdown", LONGER, max_passes=float("nan"))
    with pytest.raises(MeasurementError, match="its max passes are not known"):
        judge(
            score_table(pd.concat([clean(), unknown])),
            [parse_limit("savings_retained=0.6", fail_below=True)],
        )


def test_more_than_the_ceiling_is_an_error() -> None:
    with pytest.raises(MeasurementError, match=r"executed 17 passes, above the declared max of 16"):
        score_table(rows("Slowdown", [*LONGER[:7], 17.0]))


def test_victims_of_different_currencies_stand_in_one_table() -> None:
    image = samples("Slowdown", [20.0] * 8, [60.0] * 8, linf=8 / 255)
    table = score_table(pd.concat([clean(), rows("Slowdown", LONGER), image]))
    unions = table[table.kind == "union"].set_index("victim")
    assert unions.currency.to_dict() == {"decoder": "passes", "toy": "macs"}
    assert unions.savings_retained.to_dict() == pytest.approx({"decoder": 0.5, "toy": 0.5})


def evaluation(currency: str, **count: object) -> Evaluation:
    frame = pd.concat([clean(), rows("Slowdown", LONGER)]).assign(currency=currency)
    about = {
        "input_shape": [None],
        "max_macs": 200.0,
        "digest": "0",
        "data": ["0"],
        "counts": {"passes": {"unit": "passes", "audited": True, **count}},
    }
    meta = {"schema": 2, "victims": {"decoder": about}}
    return Evaluation(frame.reset_index(drop=True), meta)


def test_another_audited_count_may_judge_instead() -> None:
    found = evaluation("macs")
    assert found.scores().savings_retained.tolist() == [1, 1, 1]
    assert found.scores(by="passes").savings_retained.iloc[-1] == pytest.approx(0.5)
    assert found.judged_by("passes").judged_by("macs").scores().equals(found.scores())


@pytest.mark.parametrize(
    ("by", "count", "message"),
    [
        (
            "tokens",
            {},
            "decoder cannot be judged by 'tokens', which is no count of it",
        ),
        ("passes", {"audited": False}, "is declared, not audited: judge it by macs"),
        ("tokens", {}, "macs or passes"),
    ],
)
def test_what_cannot_judge_is_refused(by: str, count: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluation("macs", **count).scores(by=by)


@pytest.fixture(scope="module")
def evaluated() -> Evaluation:
    images = toys.grey_images(8)
    attacks = ["Slowdown(steps=2)", "QueryAttack(queries=3)"]
    return evaluate(toys.LinearSaver(), images, images[:, 0, 0, 0].long(), attacks, timed=0)


def test_rows_tell_what_the_attacker_knew(evaluated: Evaluation) -> None:
    told = evaluated.samples.groupby("attack", sort=False).knowledge.unique()
    assert {attack: list(knows) for attack, knows in told.items()} == {
        "clean": ["nothing"],
        "noise": ["nothing"],
        "uniform": ["nothing"],
        "Slowdown(steps=2)": ["white box"],
        "QueryAttack(queries=3)": ["queries"],
    }
    assert evaluated.samples[["right", "same"]].dtypes.tolist() == [bool, bool]


def test_what_cannot_judge_is_refused_before_anything_runs() -> None:
    images, done = toys.grey_images(2), []
    with pytest.raises(UsageError, match="toy cannot be judged by 'passes', which is no count"):
        evaluate(
            toys.LinearSaver(),
            images,
            images[:, 0, 0, 0].long(),
            ["Slowdown"],
            by="passes",
            progress=lambda *told: done.append(told),
        )
    assert not done


def test_a_frame_keeps_its_counts(tmp_path: Path) -> None:
    made = evaluation("passes")
    found = Evaluation(arranged(made.samples), made.meta)
    again = Evaluation.load(found.save(tmp_path))
    pd.testing.assert_frame_equal(again.scores(), found.scores())
    assert again.samples.edits.max() == 10


def test_a_baseline_is_compared_in_the_currency(tmp_path: Path) -> None:
    before = Baseline.load(Baseline.of(evaluation("passes")).save(tmp_path / "v1.json"))
    worse = evaluation("passes")
    attacked = worse.samples.attack == "Slowdown"
    worse.samples.loc[attacked, "passes"] = worse.samples.loc[attacked, "max_passes"]
    (change,) = (c for c in compare(worse, before, "v1").changes if c.score == "savings_retained")
    assert (change.before, change.after, change.by.value) == pytest.approx((0.5, 0, -0.5))
    with pytest.raises(UsageError, match=r"currency passes there, macs here"):
        compare(evaluation("macs"), before, "v1")


def test_self_checks_compare_what_judges() -> None:
    noise = rows("noise", [3.0, 5.0, 7.0, 9.0] * 2)
    frame = pd.concat([clean(), noise, rows("Slowdown", LONGER)], ignore_index=True)
    found = {check.check: check for check in check_scores(frame, score_table(frame))}
    check = found["Slowdown is stronger than noise"]
    assert check.passed
    assert check.message.startswith("passes ×1.200 of noise at suffix 10 tokens against ×1.800 of")
