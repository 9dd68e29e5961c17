"""Scores against hand-made samples whose answer is known."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hand_made import samples
from hypothesis import given, settings
from hypothesis import strategies as st

from effattack.errors import MeasurementError, UsageError
from effattack.results.limits import judge, parse_limit, results
from effattack.results.scores import COLUMNS, score_table


def test_the_columns_are_those_of_the_file() -> None:
    table = score_table(samples("Slowdown", [20.0, 40.0], [60.0, 80.0]))
    assert list(table.columns) == COLUMNS
    assert COLUMNS[0] == "victim"
    assert COLUMNS[40:] == [
        *("modelled_energy_ratio", "currency", "work", "clean_work", "max_work"),
        *("equals_n_requests", "knowledge", "certified_retained", "certified_factor"),
        *("output_tokens", "clean_output_tokens"),
        *("cap_hit_rate", "cap_hit_rate_low", "cap_hit_rate_high", "clean_cap_hit_rate"),
        *("amplification_passes", "amplification_macs", "amplification_bytes"),
    ]


def test_a_hand_computed_row() -> None:
    row = score_table(samples("Slowdown", [20.0, 40.0], [60.0, 80.0])).iloc[0]
    assert row.attack_success == pytest.approx(80 / 140)
    assert row.savings_retained == pytest.approx(60 / 140)
    assert row.attack_success_dense == pytest.approx(80 / 100)
    assert row.macs_ratio == pytest.approx(140 / 60)
    assert row.latency_ratio == pytest.approx(2)
    assert math.isnan(row.energy_ratio)
    assert row.modelled_energy_ratio == pytest.approx(1.5)


def test_every_headline_number_has_an_interval() -> None:
    attacked = [float(40 + k % 50) for k in range(100)]
    rows = samples("Slowdown", [20.0] * 100, attacked, label=[k % 4 // 3 for k in range(100)])
    row = score_table(rows).iloc[0]
    for name in ("savings_retained", "accuracy", "agreement"):
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row.accuracy == 0.75
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((0.6534, 0.8312), abs=1e-4)
    assert row.savings_retained_low < row.savings_retained < row.savings_retained_high


def test_seeds_are_no_new_images() -> None:
    """Three seeds that do the same to the same images leave every interval as it was."""
    attacked = [float(40 + k) for k in range(40)]
    one = samples("Slowdown", [20.0] * 40, attacked, label=[k % 4 // 3 for k in range(40)])
    one["seconds"] = [1e-3 + k * 1e-4 for k in range(40)]
    three = pd.concat([one.assign(seed=seed) for seed in range(3)])
    tables = [score_table(rows).drop(columns="samples") for rows in (one, three)]
    pd.testing.assert_frame_equal(*tables)


def test_slow_and_wrong_counts_only_where_both_hold() -> None:
    clean, attacked = [20.0] * 4, [60.0, 60.0, 20.0, 20.0]
    row = score_table(samples("Slowdown", clean, attacked, prediction=[0, 1, 0, 1])).iloc[0]
    assert row.slow_and_wrong == 0.25


def test_accuracy_and_agreement_are_different_things() -> None:
    row = score_table(
        samples(
            "PGD", [20.0] * 4, [20.0] * 4, prediction=[0, 1, 1, 1], clean_prediction=[0, 1, 0, 0]
        )
    ).iloc[0]
    assert row.accuracy == 0.25
    assert row.agreement == 0.5


def test_seeds_are_pooled() -> None:
    both = [samples("Slowdown", [20.0], [macs], seed=s) for s, macs in enumerate((60.0, 100.0))]
    table = score_table(pd.concat(both))
    assert table.attack.tolist() == ["Slowdown", "union"]
    assert table.attack_success[0] == pytest.approx(120 / 160)
    assert table.attack_success[1] == 1, "the union takes the worst seed"


def test_an_unknown_max_leaves_the_ratio() -> None:
    row = score_table(samples("Slowdown", [20.0], [60.0], ceiling=math.nan)).iloc[0]
    assert math.isnan(row.attack_success)
    assert math.isnan(row.savings_retained)
    assert row.macs_ratio == 3


def test_a_constant_victim_keeps_everything() -> None:
    row = score_table(samples("noise", [100.0], [100.0], constant=True)).iloc[0]
    assert (row.attack_success, row.savings_retained, row.macs_ratio) == (0, 1, 1)


def test_where_nothing_was_saved_nothing_is_retained() -> None:
    """0 of 0 is neither 100 % nor 0 %."""
    row = score_table(samples("Slowdown", [100.0] * 8, [100.0] * 8)).iloc[0]
    found = (row.attack_success, row.savings_retained, row.savings_retained_low)
    assert all(map(math.isnan, found))
    assert row.macs_ratio == 1


def test_a_constant_victim_that_moves_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="declares constant MACs"):
        score_table(samples("noise", [90.0], [100.0], constant=True))


def test_a_max_declared_too_low_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="above the declared max"):
        score_table(samples("Slowdown", [20.0], [101.0]))


macs = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 100)), min_size=1, max_size=20)


@given(macs)
@settings(deadline=None, max_examples=30)
def test_success_is_at_most_one_and_retained_is_its_rest(pairs: list[tuple[int, int]]) -> None:
    clean, attacked = map(list, zip(*[(float(a), float(b)) for a, b in pairs], strict=True))
    row = score_table(samples("Slowdown", clean, attacked)).iloc[0]
    assert row.attack_success <= 1
    assert row.attack_success + row.savings_retained == pytest.approx(1)
    assert (row.attack_success > 0) == (sum(attacked) > sum(clean))


def test_a_limit_judges_the_union() -> None:
    table = score_table(
        pd.concat(
            [
                samples("uniform", [20.0], [100.0], threat="box", eps=1.0),
                samples("DeepSloth", [20.0], [30.0]),
                samples("Slowdown", [20.0], [60.0]),
            ]
        )
    )
    (held,) = judge(table, [parse_limit("savings_retained=0.5", fail_below=True)])
    assert held.passed
    (crossed,) = judge(table, [parse_limit("savings_retained=0.6", fail_below=True)])
    assert not crossed.passed
    for word in ("Slowdown", "8/255", "20 → 60", "0.500", "0.6", "of at most 100"):
        assert word in crossed.message
    (ratio,) = judge(table, [parse_limit("macs_ratio=2.9", fail_below=False)])
    assert not ratio.passed


def test_latency_is_judged_by_the_lower_bound() -> None:
    noisy = samples("Slowdown", [20.0] * 8, [60.0] * 8, seconds=[1.4e-3] * 3 + [1.6e-3] * 5)
    row = score_table(noisy).iloc[0]
    assert row.latency_low < 1.5 < row.latency_ratio
    limit = parse_limit("latency_ratio=1.5", fail_below=False)
    assert judge(score_table(noisy), [limit])[0].passed


def test_half_of_the_images_slower_hides_in_no_median() -> None:
    rows = samples("Slowdown", [20.0] * 12, [30.0] * 12, seconds=[1e-3] * 6 + [3e-3] * 6)
    row = score_table(rows).iloc[0]
    assert (row.latency_low, row.latency_high) == pytest.approx((1, 3))
    assert math.isnan(row.latency_ratio), "an interval that wide measures no median"
    assert row.latency_mean_ratio == pytest.approx(2)
    assert row.latency_p95_ratio == pytest.approx(3)


@pytest.mark.parametrize("score", ["latency_ratio", "latency_low"])
@pytest.mark.parametrize(("slow", "wide"), [(1.49e-3, False), (1.51e-3, True)])
def test_an_interval_too_wide_is_no_measurement(score: str, slow: float, wide: bool) -> None:
    rows = samples("Slowdown", [20.0] * 12, [30.0] * 12, seconds=[1e-3] * 6 + [slow] * 6)
    limit = parse_limit(f"{score}=9", fail_below=False)
    if not wide:
        assert judge(score_table(rows), [limit])[0].passed
        return
    message = r"under Slowdown: its interval, 1\.00 to 1\.51, is wider than a factor of 1\.5"
    with pytest.raises(MeasurementError, match=message):
        judge(score_table(rows), [limit])


def test_seeds_of_an_image_are_averaged_first() -> None:
    """An image that ran under more seeds counts no more than the others."""
    once = samples("Slowdown", [20.0, 20.0], [20.0, 100.0])
    again = [samples("Slowdown", [20.0], [20.0], seed=seed) for seed in (1, 2)]
    assert score_table(pd.concat([once, *again])).savings_retained[0] == pytest.approx(0.5)


def test_a_score_that_is_nan_is_no_pass() -> None:
    table = score_table(samples("Slowdown", [20.0], [60.0], ceiling=math.nan))
    limit = parse_limit("savings_retained=0.5", fail_below=True)
    with pytest.raises(MeasurementError, match="could not measure savings_retained of toy"):
        judge(table, [limit])
    assert judge(table, []) == [], "without a limit the MACs ratio says enough"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            samples("noise", [20.0], [60.0]),
            "toy: no attack ran on it inside a budget: name one that applies, as Q",
        ),
        (
            samples("PGD", [20.0], [60.0], threat="l2", eps=9.0),
            r"inside a budget \(PGD keeps to no asked budget; it has no gates\)",
        ),
        (samples("Slowdown", [100.0], [100.0]), "nothing was saved on the clean inputs, so noth"),
    ],
)
def test_a_run_that_measured_nothing_is_no_pass(rows: pd.DataFrame, message: str) -> None:
    """With limits or without; but a constant victim has nothing to lose."""
    if rows.attack.iloc[0] == "PGD":
        rows = pd.concat([rows, samples("noise", [20.0], [20.0])])
    why = [{"victim": "toy", "reason": "it has no gates"}] * (len(rows) > 1)
    with pytest.raises(MeasurementError, match=message):
        judge(score_table(rows), [], why)
    constant = score_table(rows.assign(constant=True, macs=20.0, clean_macs=20.0))
    assert judge(constant, []) == []


@pytest.mark.parametrize(
    ("text", "below", "message"),
    [
        ("savings_retaned=0.5", True, "did you mean savings_retained"),
        ("macs_ratio=1.5", True, "use fail-above"),
        ("savings_retained=0.5", False, "use fail-below"),
        ("savings_retained", True, "write SCORE=NUMBER"),
        ("savings_retained=much", True, "write SCORE=NUMBER"),
        ("savings_retained=nan", True, "write SCORE=NUMBER"),
    ],
)
def test_limits_that_mean_nothing(text: str, below: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_limit(text, fail_below=below)


def interval(table: pd.DataFrame) -> tuple[float, float]:
    row = score_table(table).iloc[0]
    return row.savings_retained_low, row.savings_retained_high


def test_images_that_agree_leave_doubt_about_those_not_seen() -> None:
    low, high = interval(samples("Slowdown", [20.0] * 20, [100.0] * 20))
    assert low == 0
    assert 0.17 < high < 0.25, "of 20 images, more than one in six may be another kind"


def test_savings_are_never_said_to_be_below_0() -> None:
    low, high = interval(samples("Slowdown", [20.0] * 8, [100.0] * 7 + [20.0]))
    assert 0 <= low < 0.01
    assert high > 0.2


def test_no_interval_without_a_max_or_with_few_images() -> None:
    assert all(map(math.isnan, interval(samples("Slowdown", [20.0] * 6, [60.0] * 6, math.nan))))
    assert all(map(math.isnan, interval(samples("Slowdown", [20.0] * 5, [60.0] * 5))))


def test_a_constant_victim_keeps_all() -> None:
    assert interval(samples("noise", [20.0] * 3, [20.0] * 3, constant=True)) == (1, 1)


def test_reachable_is_the_dearest_image_clean_or_attacked() -> None:
    assert score_table(samples("noise", [90.0, 20.0], [80.0, 30.0])).reachable[0] == 90


def test_results_tell_what_judging_would_raise() -> None:
    rows = pd.concat([samples("Slowdown", [20.0] * 6, [60.0] * 6), samples("PGD", [20.0], [20.0])])
    unknown = rows.assign(victim="other", max_macs=math.nan)
    limits = [parse_limit("savings_retained=0.4", fail_below=True)]
    limits += [parse_limit("macs_ratio=2", fail_below=False)]
    found = results(score_table(pd.concat([rows, unknown])), limits)
    told = [(one["victim"], one["limit"], one["result"]) for one in found]
    assert told == [
        ("toy", "savings_retained at least 0.4", "passed"),
        ("toy", "macs_ratio at most 2", "failed"),
        ("other", "savings_retained at least 0.4", "not measured"),
        ("other", "macs_ratio at most 2", "failed"),
    ]
    assert "could not measure savings_retained of other" in found[2]["message"]
