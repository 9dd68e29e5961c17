"""Self-checks on score tables whose answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from effattack.selfchecks import check_scores

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
