"""Every promise of a server, broken in turn, and told so."""

from __future__ import annotations

from typing import Any

import pytest
from served import Letters, served

from effattack.errors import MeasurementError
from effattack.measure.caps import BROKEN, FAILED, HOLDS, REFUSED, UNSEEN, Row, caps
from effattack.victim.endpoint import Server

WAYS = ("plain", "stream")


def judged(
    *, requests: int = 40, tokens: int = 6000, timeout: float = 20.0, **faults: Any
) -> dict[tuple[str, str], Row]:
    """(promise, way) -> its row, of a server with such faults."""
    with served(**faults) as (url, _):
        server = Server(
            url, "any", tokenizer=Letters(), requests=requests, tokens=tokens, timeout=timeout
        )
        return {(row.promise, row.way): row for row in caps(server)}


def verdicts(rows: dict[tuple[str, str], Row], verdict: str) -> set[str]:
    """Promises with that verdict, in either way."""
    return {promise for (promise, _), row in rows.items() if row.verdict == verdict}


def test_a_server_that_keeps_its_promises() -> None:
    rows = judged(reasons=True, rejected=0)
    assert verdicts(rows, HOLDS) == {
        *("max_tokens", "max_completion_tokens", "n", "stop", "usage", "finish_reason"),
        *("speculation", "reasoning budget"),
    }
    assert verdicts(rows, UNSEEN) == {"retries"}
    assert len(rows) == 17
    for way in WAYS:
        assert rows["max_tokens", way][4:6] == (24, 24)
        assert rows["n", way].tokens == 48


@pytest.mark.parametrize(
    ("fault", "broken"),
    [
        ({"n": True}, {"n"}),
        ({"stop": True}, {"stop"}),
        ({"lies": 10}, {"usage"}),
        ({"lies": -10}, {"usage", "max_tokens", "max_completion_tokens", "n"}),
        ({"no_usage": True}, {"usage"}),
        ({"reason": "stop"}, {"finish_reason"}),
        ({"reasons": True, "budget": True}, {"reasoning budget"}),
        ({"reasons": True, "moves": True}, {"reasoning budget"}),
        ({"reasons": True, "reopens": 20}, {"reasoning budget"}),
        ({"rejected": 30}, {"speculation"}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_one_broken_promise_is_the_one_that_is_told(
    fault: dict[str, Any], broken: set[str]
) -> None:
    rows = judged(**fault)
    assert verdicts(rows, BROKEN) == broken
    for promise in broken:
        assert {rows[promise, way].verdict for way in WAYS} == {BROKEN}


def test_caps_that_are_ignored() -> None:
    rows = judged(max_tokens=True, tokens=20000)
    assert verdicts(rows, BROKEN) == {"max_tokens", "max_completion_tokens", "n"}
    for way in WAYS:
        for promise in ("max_tokens", "max_completion_tokens"):
            row = rows[promise, way]
            assert row.verdict == BROKEN
            assert "400 tokens under a cap of 24" in row.found or "hung up" in row.found
    assert rows["max_tokens", "stream"].tokens < 400, (
        "the client reads a long stream not to its end"
    )


def test_a_short_text_shows_nothing() -> None:
    rows = judged(written=20)
    assert {"max_tokens", "max_completion_tokens", "finish_reason"} <= verdicts(rows, UNSEEN)
    assert not verdicts(rows, BROKEN)


def test_the_usage_of_a_text_that_cannot_be_counted_again_is_not_judged() -> None:
    rows = judged(odd="aeiou")
    for way in WAYS:
        assert rows["usage", way][4:6] == (19, 24)
        assert rows["usage", way].verdict == UNSEEN
    assert not verdicts(rows, BROKEN)


def test_a_promise_that_was_not_made_is_not_broken() -> None:
    assert verdicts(judged(n_refused=True), REFUSED) == {"n"}


def test_a_stream_that_breaks_off_once_costs_its_retry() -> None:
    rows = judged(breaks=90)
    assert rows["retries", "both"].verdict == BROKEN
    assert rows["retries", "both"].found.startswith("186 tokens in 2 attempts")
    assert verdicts(rows, BROKEN) == {"retries"}


def test_a_stream_that_always_breaks_off_keeps_the_rows_before() -> None:
    rows = judged(breaks=10, always=True)
    assert rows["an answer", "stream"].verdict == BROKEN
    assert "after 10 tokens, 2 times in a row" in rows["an answer", "stream"].found
    assert rows["max_tokens", "plain"].verdict == HOLDS


@pytest.mark.parametrize("after", [3, 4])
def test_a_server_that_fails_later_keeps_the_rows_before(after: int) -> None:
    rows = judged(after=after, status=503)
    assert rows["max_tokens", "plain"].verdict == HOLDS
    assert rows["n" if after == 3 else "stop", "plain"].verdict == FAILED
    assert "answers 503" in rows["stop", "plain"].found


def test_a_slow_server_fails_its_row() -> None:
    rows = judged(after=4, slow=0.3, timeout=0.1)
    assert rows["n", "plain"].verdict == HOLDS
    assert "no whole answer in 0.1 s" in rows["stop", "plain"].found


def test_what_the_budget_does_not_admit_is_not_asked() -> None:
    rows = judged(requests=3)
    assert rows["max_completion_tokens", "plain"].verdict == HOLDS
    assert "budget of requests is spent" in rows["n", "plain"].found


def test_a_server_that_never_answers_has_no_table() -> None:
    with pytest.raises(MeasurementError, match="answers 500"):
        judged(status=500)
