"""A server as a victim: scored by the tokens that are counted here, whatever it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from own_module import written
from served import Letters, served
from torch import Tensor

import effattack
from effattack.cli import main
from effattack.errors import CellError, MeasurementError, UsageError
from effattack.reporting import html
from effattack.results.selfchecks import check_scores
from effattack.runs.executors.workers import Workers
from effattack.runs.sweep import Sweep
from effattack.victim.digests import victim_digest
from effattack.victim.endpoint import Endpoint

CAP = 24
CONTRACT = 4 + 4 + 1 + 8
"""Requests before any row: forms and shapes, the cap on long prompts, a glance, all twice."""
ROWS = 4
"""Of a prompt: clean, under noise, and two plain texts."""
EACH = 3 + 2 * (ROWS - 1)
"""Requests of a prompt: clean, with its answer and as an attack begins; and under each control."""


def endpoint(url: str, **settings: Any) -> Endpoint:
    given = {"tokenizer": Letters(), "vocabulary": 128, "requests": 900, "tokens": 90_000}
    given |= {"cap": CAP, "longest": 12, "timeout": 20.0, "name": "shut", **settings}
    return Endpoint(url, "any", **given)


def prompts(*texts: str) -> tuple[Tensor, Tensor]:
    """Prompts of one length, and their answers, which nobody reads."""
    ids = torch.tensor([[ord(letter) for letter in text] for text in texts])
    return ids, torch.zeros(len(texts), 1, dtype=torch.long)


def evaluated(victim: Endpoint, *texts: str, **settings: Any) -> effattack.Evaluation:
    attacks = settings.pop("attacks", ["noise"])
    return effattack.evaluate(victim, *prompts(*texts), attacks, eps="swap:1", **settings)


def claim_of(found: effattack.Evaluation) -> Any:
    (one,) = [c for c in check_scores(found.samples, found.scores()) if "usage" in c.check]
    return one


def test_a_server_is_scored_by_the_tokens_of_its_answers() -> None:
    """Four tokens per kind of letter; the search, allowed one letter, adds a kind."""
    with served(kinds=True) as (url, _):
        victim = endpoint(url)
        attacks = ["noise", "QueryAttack(queries=20)", "Slowdown"]
        found = evaluated(victim, "baab", "bbbb", attacks=attacks)
    rows = found.samples.set_index(["attack", "sample"])
    clean = rows.loc["clean"]
    assert clean.output_tokens.tolist() == [8, 4]
    assert clean.claimed_tokens.tolist() == [8, 4]
    assert rows.loc["QueryAttack(queries=20)"].output_tokens.tolist() == [12, 8]
    assert (rows.max_output_tokens == CAP).all()
    assert (rows.requests == 1).all()
    assert not rows.capped.any()
    assert (rows.answer_seconds > 0).all()
    assert rows[["macs", "clean_macs", "max_macs", "seconds"]].isna().to_numpy().all()
    scores = found.scores().set_index("attack")
    assert scores.loc["QueryAttack(queries=20)"].savings_retained == (2 * CAP - 20) / (2 * CAP - 12)
    assert scores.loc["QueryAttack(queries=20)"].equals_n_requests == 20 / 12
    assert scores.macs_ratio.isna().all()
    assert scores.loc["QueryAttack(queries=20)"].knowledge == "queries"
    (skipped,) = found.meta["skipped"]
    assert skipped["attack"] == "Slowdown"
    assert "lifts no words" in skipped["reason"]
    assert claim_of(found).passed is True


def test_how_often_the_cap_ends_a_text_is_a_score() -> None:
    with served(kinds=True) as (url, _):
        found = evaluated(endpoint(url, cap=12), "abcb", "bbbb", attacks=[])
    scores = found.scores().set_index("attack")
    assert scores.loc["clean"].cap_hit_rate == 0.5
    assert scores.loc["clean"].output_tokens == 8
    assert scores.loc["clean"].savings_retained == 1


def test_what_an_evaluation_asks_is_known() -> None:
    with served(kinds=True) as (url, seen):
        evaluated(endpoint(url), "baab", "bbbb", "abab", "aaaa", attacks=[])
        bodies = [body for _, body, _ in seen]
    assert len(seen) == CONTRACT + 4 * EACH
    assert all(body["max_tokens"] == CAP and body["temperature"] == 0 for body in bodies)


def test_the_trace_says_whom_the_cap_ended() -> None:
    with served(kinds=True) as (url, _):
        trace = endpoint(url).trace(prompts("bbbb", "aaaa")[0])
        long = endpoint(url).trace(prompts("abcdef")[0])
    assert trace.aux["capped"].tolist() == [False, False]
    assert long.aux["capped"].tolist() == [True]
    assert long.also["output_tokens"].tolist() == [CAP]
    assert trace.macs.isnan().all()


@pytest.mark.parametrize(
    ("faults", "passed", "told"),
    [
        ({"lies": 9}, False, "at worst -1 claimed, 8 counted"),
        ({"lies": 2}, True, "up to how a text is cut"),
        ({"no_usage": True}, None, "claims no usage"),
    ],
)
def test_the_usage_is_a_claim_beside(
    faults: dict[str, Any], passed: bool | None, told: str
) -> None:
    with served(kinds=True, **faults) as (url, _):
        found = evaluated(endpoint(url), "baab", "bbbb")
    assert claim_of(found).passed is passed
    assert told in claim_of(found).message
    assert found.samples[found.samples.attack == "clean"].output_tokens.tolist() == [8, 4]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ({"status": 500}, "answers 500"),
        ({"breaks": 1, "always": True}, "broke off"),
        ({"text": "{}"}, "broke off after 0 tokens"),
        ({"slow": 2.0}, "gave no whole answer in 1 s"),
    ],
)
def test_rows_that_are_finished_stay(faults: dict[str, Any], told: str, tmp_path: Path) -> None:
    """Of the third prompt on, the server fails; later it is mended, and only they are asked."""
    texts = ("baab", "bbbb", "abab", "aaaa")
    before = CONTRACT + 2 * EACH
    with served(kinds=True, after=before, **faults) as (url, seen):
        victim = endpoint(url, retries=0, timeout=1.0)
        found = evaluated(victim, *texts, out=tmp_path, attacks=[])
        assert sorted(set(found.samples["sample"])) == [0, 1]
        assert len(found.samples) == 2 * ROWS
        reasons = [one["reason"] for one in found.meta["skipped"]]
        assert len(reasons) == 2 * ROWS
        assert all(told in reason for reason in reasons)
        assert "prompts 2 to 2, failed" in reasons[0]
        seen.clear()  # and with it what the server counts its faults from
        found = evaluated(victim, *texts, out=tmp_path, attacks=[])
        assert len(found.samples) == 4 * ROWS
        assert not found.meta["skipped"]
        assert len(seen) == 4 + 2 * EACH


@pytest.mark.slow
def test_where_the_budget_ends_rows_end_and_more_budget_goes_on(tmp_path: Path) -> None:
    texts = ("baab", "bbbb", "abab", "aaaa")
    with served(kinds=True) as (url, seen):
        short = evaluated(
            endpoint(url, requests=CONTRACT + 2 * EACH), *texts, out=tmp_path, attacks=[]
        )
        assert len(short.samples) == 2 * ROWS
        assert "budget of requests is spent" in short.meta["skipped"][0]["reason"]
        spent = len(seen)
        whole = evaluated(endpoint(url), *texts, out=tmp_path, attacks=[])
        assert len(whole.samples) == 4 * ROWS
        assert len(seen) - spent == 4 + 2 * EACH  # its forms, and no finished row


def test_retries_are_counted() -> None:
    with served(kinds=True, breaks=1, after=CONTRACT + 1) as (url, _):
        found = evaluated(endpoint(url, retries=1), "baab", attacks=[])
    assert found.samples.requests.tolist() == [2, 1, 1, 1]


def test_a_server_that_never_answers_is_no_victim() -> None:
    with served() as (url, _):
        victim = endpoint(url)
    with pytest.raises(MeasurementError, match="is down"):
        evaluated(victim, "baab")


def test_nothing_is_green_where_no_row_is_finished() -> None:
    with served(kinds=True, after=CONTRACT, status=500) as (url, _):
        victim = endpoint(url, retries=0)
        with pytest.raises(CellError, match="answers 500"):
            evaluated(victim, "baab")


def test_a_cap_that_does_not_hold_is_no_ceiling() -> None:
    with (
        served(max_tokens=True) as (url, _),
        pytest.raises(MeasurementError, match="its cap does not hold"),
    ):
        evaluated(endpoint(url), "baab")


def test_another_count_than_the_servers_own_is_no_broken_cap() -> None:
    """It stops at its cap, and two tokens more are counted here: the cap is what is told."""

    class Doubling(Letters):
        def encode(self, text: str) -> list[int]:
            return super().encode(text) + [97] * (2 * bool(text))

    with served() as (url, _):
        victim = endpoint(url, tokenizer=Doubling())
        trace = victim.trace(prompts("baab")[0])
    assert trace.also["output_tokens"].tolist() == [CAP]
    assert trace.logits.shape == (1, CAP)


def test_its_identity_is_the_server_and_what_is_asked_not_who_asks_or_how_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with served(kinds=True) as (url, _):
        one = endpoint(url)
        digest = victim_digest(one)
        one(prompts("baab")[0])
        assert victim_digest(one) == digest
        others = [
            endpoint(url, requests=5, retries=3, timeout=1.0),
            endpoint(url, key_from="SOME_KEY", authorised="Jo"),
        ]
        assert {victim_digest(other) for other in others} == {digest}
        changed = [
            endpoint(url, cap=CAP + 1),
            endpoint(url, settings={"temperature": 1}),
            endpoint(url.replace("127.0.0.1", "localhost")),
        ]
        assert digest not in {victim_digest(other) for other in changed}


@pytest.mark.slow
def test_who_allows_it_stands_in_the_report_and_the_key_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    with served(kinds=True) as (url, seen):
        victim = endpoint(url, key_from="SOME_KEY", authorised="Jo Doe, owner")
        found = evaluated(victim, "baab", out=tmp_path / "cells")
    assert seen[0][2] == "Bearer sk-secret"
    told = found.meta["victims"]["shut"]["provenance"]
    assert told == {"server": f"{url}/v1", "model": "any", "authorised": "Jo Doe, owner"}
    page = html.write(*found.report(), tmp_path / "report.html").read_text()
    assert "authorised Jo Doe, owner" in page
    assert "output_tokens" in page
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert b"sk-secret" not in file.read_bytes()


def test_a_server_elsewhere_needs_somebody_who_allows_it() -> None:
    with pytest.raises(UsageError, match="--authorised"):
        endpoint("http://llm.example.org")


def test_a_tokenizer_says_how_many_ids_it_has() -> None:
    with pytest.raises(UsageError, match="vocabulary="):
        endpoint("http://127.0.0.1:1", vocabulary=None)


FACTORY = """
from served import Letters
from torch import full, tensor
from effattack.victim.endpoint import Endpoint

def build():
    return Endpoint({url!r}, "any", tokenizer=Letters(), vocabulary=128, cap=24, longest=12,
                    requests=900, tokens=90000, name="shut")

def data():
    return tensor([[98, 97, 97, 98], [98, 98, 98, 98]]), full((2, 1), 0)
"""
RUN = [
    "run",
    "--victim",
    "mine:build",
    "--data",
    "mine:data",
    "--attack",
    "QueryAttack(queries=20)",
]


@pytest.mark.slow
def test_from_a_factory_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(kinds=True) as (url, _):
        written(tmp_path, monkeypatch, FACTORY.format(url=url))
        assert main([*RUN, "--threat", "swap:1"]) == 0
        said = capsys.readouterr().out
        with pytest.raises(UsageError, match="one connection"):
            Sweep(("mine:build",), ("noise",), ("swap:1",), data="mine:data", timed=0).run(
                tmp_path / "out", Workers(2)
            )
    assert "shut: clean 6, max 24 output_tokens per prompt" in said
    samples = pd.read_parquet(next(Path("effattack-report").glob("*.parquet")))
    assert set(samples.output_tokens) <= {4, 8, 12}
