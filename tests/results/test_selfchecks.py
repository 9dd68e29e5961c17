"""Self-checks on rows whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest
from hand_made import KINDS, samples

from effattack.results.scores import score_table
from effattack.results.selfchecks import Check, check_scores, unexplained_time, work_outside

QUERIES = "no query search beats the white-box attacks"
CLEAN = [20.0] * 40


def rows(attack: str, macs: list[float] | float, **columns: object) -> pd.DataFrame:
    """Forty images under an attack at 8/255."""
    costs = macs if isinstance(macs, list) else [macs] * 40
    kind = KINDS.get(attack.partition("(")[0], "compute")
    frame = samples("Slowdown", CLEAN, costs, linf=8 / 255)
    return frame.assign(attack=attack, kind=kind, **columns)


def checks(*frames: pd.DataFrame) -> dict[str, Check]:
    """By name."""
    table = pd.concat(frames, ignore_index=True)
    return {check.check: check for check in check_scores(table, score_table(table))}


def box(macs: list[float] | float) -> pd.DataFrame:
    return rows("uniform", macs, threat="box", eps=1.0, linf=1.0)


@pytest.mark.parametrize(("queried", "expected"), [(28.0, True), (30.0, True), (32.0, False)])
@pytest.mark.parametrize("name", ["QueryAttack", "QueryAttack(queries=50)"])
def test_a_query_search_that_beats_the_gradients_is_told(
    queried: float, expected: bool, name: str
) -> None:
    frames = rows("Slowdown", 30.0), rows("DeepSloth", 22.0), rows(name, queried), rows("PGD", 90.0)
    assert checks(*frames)[QUERIES].passed is expected


def test_there_must_be_something_to_compare() -> None:
    assert QUERIES not in checks(rows("Slowdown", 30.0))
    assert QUERIES not in checks(rows("QueryAttack", 30.0), rows("PGD", 22.0))
    smaller = rows("Slowdown", 22.0, eps=4 / 255)
    assert QUERIES not in checks(smaller, rows("QueryAttack", 30.0))


def test_a_control_outside_the_budget_is_compared_with_the_attacks() -> None:
    """Uniform images stood at ×1.49 and retained nothing; the attack, whose margin lies, at ×1."""
    found = checks(rows("clean", 20.0), rows("Slowdown", 20.0), box(29.8))
    check = found["uniform does not beat the attacks"]
    assert check.passed is False
    for word in ("×1.490 of uniform at pixel box", "×1.000 of Slowdown", "outside the budget"):
        assert word in check.message
    assert checks(rows("Slowdown", 40.0), box(29.8))[check.check].passed is True


def test_an_attack_that_makes_images_cheaper_is_told() -> None:
    found = checks(rows("clean", 20.0, threat="none", eps=0.0, linf=0.0), rows("Slowdown", 12.0))
    assert found["clean does not beat the attacks"].passed is False


@pytest.mark.parametrize(
    ("noise", "attack", "expected"),
    [
        (20.0, 30.0, True),
        (30.0, 30.0, True),  # both moved, none more than the other
        (20.0, 20.0, None),  # neither moved: nothing is shown
        (31.0, 30.0, False),
        ([90.0, *CLEAN[1:]], 20.0, True),  # one image of forty is chance
        ([90.0, 20.0] * 20, 20.0, False),
    ],
)
def test_an_attack_is_held_against_noise_image_by_image(
    noise: list[float] | float, attack: float, expected: bool | None
) -> None:
    frames = rows("noise", noise), rows("Slowdown", attack)
    found = checks(*frames)["Slowdown is stronger than noise"]
    assert found.passed is expected
    assert ("neither moved any" in found.message) == (expected is None)
    assert "Slowdown at eps 8/255" in found.message


def test_few_images_say_nothing() -> None:
    few = [f[f["sample"] < 5] for f in (rows("noise", 90.0), rows("Slowdown", 20.0))]
    found = checks(*few)["Slowdown is stronger than noise"]
    assert (found.passed, "5 inputs are too few" in found.message) == (None, True)


def test_a_name_that_is_no_call_stops_no_check() -> None:
    assert "mine (v2, is stronger than noise" in checks(
        rows("noise", 20.0), rows("mine (v2,", 30.0), rows("QueryAttack", 22.0)
    )


def test_constant_victims_and_unknown_maxima_raise_nothing() -> None:
    still = [f.assign(constant=True) for f in (rows("noise", 20.0), rows("Slowdown", 20.0))]
    assert checks(*still) == {}
    sizes = [rows("Slowdown", 30.0 - k, eps=(8 + k) / 255, max_macs=float("nan")) for k in range(2)]
    assert "Slowdown grows with the budget" not in checks(*sizes)


def timed(milliseconds: list[float], macs: list[float], repeats: int = 3) -> pd.DataFrame:
    """Rows of inputs whose clean twins take a millisecond and 100 MACs, under several attacks."""
    rows = pd.DataFrame({"seconds": milliseconds, "macs": macs, "sample": range(len(macs))})
    rows = rows.assign(seconds=rows.seconds / 1e3, clean_seconds=1e-3, clean_macs=100.0)
    rows = pd.concat([rows] * repeats, ignore_index=True)
    return rows.assign(victim="toy", batch_size=1.0, max_macs=1e3, currency="macs")


@pytest.mark.parametrize(
    ("milliseconds", "macs", "said"),
    [
        ([1, 1, 1, 9], [100, 100, 100, 100], True),
        ([1, 1, 1, 9], [100, 100, 100, 900], False),
        ([1, 1, 1, 4.9], [100, 100, 100, 100], False),
        ([1, 1, 1, 5.9], [100, 100, 100, 100], False),
        ([1, 1, 1, 6.1], [100, 100, 100, 100], True),
    ],
    ids=["hidden", "explained", "below the factor", "below 5 ms", "above both"],
)
def test_time_that_no_macs_explain_is_said(
    milliseconds: list[float], macs: list[float], said: bool
) -> None:
    notes = unexplained_time(timed(milliseconds, macs))
    assert len(notes) == said
    if said:
        assert notes[0].startswith("toy: time that no MACs explain: 1 of 8 timed inputs")


def test_one_disturbed_call_explains_nothing() -> None:
    rows = timed([1, 1, 1, 1], [100] * 4)
    rows.loc[0, ["seconds", "clean_seconds"]] = 1.0
    assert unexplained_time(rows) == []
    assert unexplained_time(rows.assign(seconds=float("nan"))) == [], "nothing was timed"


def test_declared_work_is_said_with_its_time_per_input() -> None:
    rows = pd.DataFrame({"victim": "toy", "outside": ['{"decode": 0.001}', '{"decode": 0.003}']})
    (note,) = work_outside(rows)
    assert note.startswith("toy: 2 ms per input in decode, declared as outside the counter")
    assert work_outside(rows.assign(outside=None)) == []
