"""Self-checks on score tables whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from effattack.selfchecks import check_scores, unexplained_time, work_outside

NAME = "no query search beats the white-box attacks"


def table(**ratios: float) -> pd.DataFrame:
    """Scores of attacks with given MACs ratios, all on one victim at one budget."""
    rows = [
        {
            "victim": "toy",
            "attack": attack.replace("_", " "),
            "threat": "linf",
            "eps": 8 / 255,
            "constant": False,
            "macs_ratio": ratio,
            "attack_success": ratio - 1,
        }
        for attack, ratio in ratios.items()
    ]
    return pd.DataFrame(rows)


def passed(scores: pd.DataFrame) -> list[bool | None]:
    kinds = dict.fromkeys(scores.attack, "compute") | {"PGD": "accuracy"}
    return [check.passed for check in check_scores(scores, kinds) if check.check == NAME]


@pytest.mark.parametrize(("queried", "expected"), [(1.4, True), (1.5, True), (1.6, False)])
def test_a_query_search_that_beats_the_gradients_is_told(queried: float, expected: bool) -> None:
    scores = table(Slowdown=1.5, DeepSloth=1.1, QueryAttack=queried, PGD=9.0)
    assert passed(scores) == [expected]
    renamed = scores.replace({"attack": {"QueryAttack": "QueryAttack(queries=50)"}})
    assert passed(renamed) == [expected]


def test_there_must_be_something_to_compare() -> None:
    assert passed(table(Slowdown=1.5)) == []
    assert passed(table(QueryAttack=1.5, PGD=1.1)) == []
    apart = table(Slowdown=1.1, QueryAttack=1.5)
    apart.loc[1, "eps"] = 4 / 255
    assert passed(apart) == []


def timed(milliseconds: list[float], macs: list[float], repeats: int = 3) -> pd.DataFrame:
    """Rows of inputs whose clean twins take a millisecond and 100 MACs, under several attacks."""
    rows = pd.DataFrame({"seconds": milliseconds, "macs": macs, "sample": range(len(macs))})
    rows = rows.assign(seconds=rows.seconds / 1e3, clean_seconds=1e-3, clean_macs=100.0)
    rows = pd.concat([rows] * repeats, ignore_index=True)
    return rows.assign(victim="toy", batch_size=1.0)


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
