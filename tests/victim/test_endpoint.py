"""A server is asked under a budget, counted by the client, and its key stays where it is."""

from __future__ import annotations

from typing import Any

import pytest
from served import Letters, served

from effattack.errors import MeasurementError, UsageError
from effattack.victim.endpoint import (
    Asked,
    BrokenOff,
    BudgetSpent,
    RefusedRequest,
    Server,
    TooLong,
)


def server_at(url: str, **settings: Any) -> Server:
    given = {"tokenizer": Letters(), "requests": 9, "tokens": 2000, "timeout": 20.0, **settings}
    return Server(url, "any", **given)


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_counted_here_and_the_claim_stands_beside(stream: bool) -> None:
    with served(reasons=True, lies=5) as (url, seen):
        server = server_at(url)
        answer = server.ask("count", most=160, stream=stream, n=2, max_tokens=80)
    assert answer.tokens == (80, 80)
    assert answer.reasoning == (60, 60)
    assert answer.claimed() == 155
    assert [choice.reason for choice in answer.choices] == ["length"] * 2
    assert server.asked == [Asked(160, 1, 160, 0)]
    assert server.tokens_left == 2000 - len("count") - 160
    path, body, key = seen[0]
    assert (path, key) == ("/v1/chat/completions", None)
    assert body["messages"] == [{"role": "user", "content": "count"}]
    assert body["stream"] is stream


def test_reasoning_between_marks_is_reasoning() -> None:
    text = '{"choices": [{"message": {"content": "<think>abc</think>de"}}]}'
    with served(text=text) as (url, _):
        answer = server_at(url).ask("?", most=9)
    assert answer.choices[0][:2] == ("de", "abc")
    assert (answer.tokens, answer.reasoning) == ((5,), (3,))
    assert answer.claimed() is None


def test_the_budget_is_kept_before_anything_is_sent() -> None:
    with served() as (url, seen):
        server = server_at(url, requests=1, tokens=60)
        with pytest.raises(BudgetSpent, match="61"):
            server.ask("?", most=60, max_tokens=60)
        server.ask("?", most=20, max_tokens=20)
        with pytest.raises(BudgetSpent, match="requests"):
            server.ask("?", most=20, max_tokens=20)
    assert len(seen) == 1


def test_a_stream_without_an_end_is_left() -> None:
    with served(max_tokens=True) as (url, _):
        answer = server_at(url).ask("?", most=10, stream=True, max_tokens=10)
    assert answer.cut
    assert 104 < sum(answer.tokens) < 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_drips_is_left_in_time(stream: bool) -> None:
    late = pytest.raises(MeasurementError, match=r"no whole answer in 0\.2 s")
    with served(text="x" * 100, drips=0.05) as (url, _), late:
        server_at(url, timeout=0.2).ask("?", most=10, stream=stream)


def test_what_is_sent_again_is_counted() -> None:
    with served(breaks=7) as (url, seen):
        server = server_at(url)
        answer = server.ask("?", most=10, stream=True, max_tokens=10)
    assert answer.tokens == (10,)
    assert server.asked == [Asked(10, 2, 17, 0)]
    assert (len(seen), server.requests_left) == (2, 7)
    assert server.tokens_left == 2000 - 2 - 17


@pytest.mark.parametrize("form", [{}, {"chunked": True}], ids=["plain", "chunked"])
def test_a_stream_that_always_breaks_off(form: dict[str, Any]) -> None:
    with served(breaks=7, always=True, **form) as (url, _):
        server = server_at(url, retries=2)
        with pytest.raises(BrokenOff, match="after 7 tokens, 3 times in a row"):
            server.ask("?", most=10, stream=True, max_tokens=10)
    assert server.asked == [Asked(10, 3, 21, 0)]


def test_a_stream_that_ends_in_the_middle_of_a_line_broke_off() -> None:
    """As when a server is killed: it is asked again, and is not taken for another protocol."""
    line = 'data: {"choices": [{"index": 0, "delta": {"content": "ab"}}]}\n\n'
    with served(text=line + line[:20]) as (url, _):
        server = server_at(url)
        with pytest.raises(
            BrokenOff, match="after 2 tokens, 2 times in a row: see the server's log"
        ):
            server.ask("?", most=10, stream=True, max_tokens=10)
    assert server.asked == [Asked(10, 2, 4, 0)]


def test_a_last_line_needs_no_end() -> None:
    whole = 'data: {"choices": [{"delta": {"content": "ab"}, "finish_reason": "stop"}]}'
    with served(text=whole) as (url, _):
        answer = server_at(url).ask("?", most=10, stream=True, max_tokens=10)
    assert answer.choices == (("ab", "", "stop"),)


@pytest.mark.parametrize(("status", "unseen", "attempts"), [(500, 20, 2), (503, 0, 2), (429, 0, 2)])
def test_what_may_have_been_written_unseen(status: int, unseen: int, attempts: int) -> None:
    with served(status=status) as (url, _):
        server = server_at(url)
        with pytest.raises(MeasurementError, match=f"answers {status}"):
            server.ask("?", most=10, max_tokens=10)
    assert server.asked == [Asked(10, attempts, 0, unseen)]


def test_a_retry_beyond_the_budget_forgets_nothing() -> None:
    with served(breaks=7) as (url, _):
        server = server_at(url, tokens=15)
        with pytest.raises(BudgetSpent, match="7 tokens left"):
            server.ask("?", most=10, stream=True, max_tokens=10)
    assert server.asked == [Asked(10, 1, 7, 0)]


def test_an_answer_in_one_piece_without_an_end_is_left() -> None:
    with served(text="x" * 200_000) as (url, _):
        server = server_at(url)
        with pytest.raises(TooLong, match="bytes came for at most 10 tokens"):
            server.ask("?", most=10)
    assert server.asked == [Asked(10, 1, 0, 10)]


def test_a_refusal_is_not_sent_again() -> None:
    with served(status=404) as (url, seen):
        with pytest.raises(RefusedRequest, match="answers 404"):
            server_at(url).ask("?", most=10)
        assert len(seen) == 1


def test_a_server_that_is_down_or_slow() -> None:
    with served() as (url, _):
        pass
    server = server_at(url, retries=0)
    with pytest.raises(MeasurementError, match=r"is down \(.+\): start it"):
        server.ask("?", most=10)
    assert server.asked == [Asked(10, 1, 0, 0)]
    with served(slow=0.3) as (url, seen):
        server = server_at(url, timeout=0.1)
        with pytest.raises(MeasurementError, match=r"no whole answer in 0\.1 s"):
            server.ask("?", most=10)
        assert len(seen) == 1, "whoever sends a slow request again pays twice"
    assert server.asked == [Asked(10, 1, 0, 10)]


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("hello", False),
        ("[]", False),
        ('{"choices": [3]}', False),
        ("data: hello\n\n", True),
        ('data: {"choices": [3]}\n\n', True),
        ('data: {"choices": [{"index": "x", "delta": {}}]}\n\n', True),
        ('data: {"choices": [{"index": [1], "delta": {}}]}\n\n', True),
        ("[" * 60_000, False),
    ],
)
def test_what_is_not_the_protocol(text: str, stream: bool) -> None:
    form = pytest.raises(MeasurementError, match="not the protocol's")
    with served(text=text) as (url, _), form:
        server_at(url).ask("?", most=10, stream=stream)


def test_the_key_comes_from_the_environment_and_is_never_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    with served(status=401) as (url, seen):
        server = server_at(url, key_from="MY_KEY")
        with pytest.raises(RefusedRequest, match=r"\(the key\)") as caught:
            server.ask("?", most=10)
        assert seen[0][2] == "Bearer s3cret"
    assert "s3cret" not in str(caught.value) + server.where
    with pytest.raises(UsageError, match="no NO_KEY"):
        server_at(url, key_from="NO_KEY")
    monkeypatch.setenv("MY_KEY", "s3\ncret")
    with pytest.raises(UsageError, match="characters that no key has") as caught:
        server_at(url, key_from="MY_KEY")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://example.org", "https://10.0.0.1:8000/v1", "http://a@b"])
def test_only_this_machine_without_a_name(url: str) -> None:
    with pytest.raises(UsageError, match=r"authorised|key"):
        server_at(url)


def test_the_loopback_of_ipv6_is_this_machine() -> None:
    assert server_at("http://[::1]:8000").where == "http://[::1]:8000/v1"


def test_elsewhere_with_a_name() -> None:
    server = server_at("https://example.org/api/", authorised="Jo Doe")
    assert (server.where, server.authorised) == ("https://example.org:443/api", "Jo Doe")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://", "http://[", ""])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(UsageError, match="no URL of a server"):
        server_at(url)


@pytest.mark.parametrize(
    ("setting", "value"), [("requests", 0), ("tokens", 0), ("timeout", 0), ("retries", -1)]
)
def test_a_budget_is_needed(setting: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"{setting} = "):
        server_at("http://localhost:1", **{setting: value})
