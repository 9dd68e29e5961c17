"""``effattack caps``: the table, the exit code, the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from served import served

from effattack.cli import main

BUDGET = ("--model", "any", "--tokenizer", "served:Letters", "--requests", "40", "--tokens", "6000")


def caps(url: str, *options: str) -> int:
    return main(["caps", url, *BUDGET, *options])


def test_exit_code_0_where_all_holds(capsys: pytest.CaptureFixture) -> None:
    with served() as (url, _):
        assert caps(url) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[1].split()[:3] == ["promise", "way", "verdict"]
    assert told.count("holds") == 12
    assert "BROKEN" not in told


def test_exit_code_1_where_one_does_not(capsys: pytest.CaptureFixture) -> None:
    with served(n=True) as (url, _):
        assert caps(url) == 1
        assert "asked for 2 texts, got 1" in capsys.readouterr().out
        assert caps(url, "--quiet") == 1
    told = capsys.readouterr().out
    assert told == "".join(f"n ({w}): asked for 2 texts, got 1\n" for w in ("plain", "stream"))


@pytest.mark.parametrize(
    "fault", [{"after": 4, "status": 503}, {"written": 3}, {"status": 500}], ids=str
)
def test_exit_code_3_where_it_could_not_be_measured(
    fault: dict[str, Any], capsys: pytest.CaptureFixture
) -> None:
    with served(**fault) as (url, _):
        code = caps(url, "--retries", "0", "--cap", "24")
    assert code == 3, capsys.readouterr().out


def test_json_has_every_row_and_who_allows_it(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "s3cret")
    with served(n=True) as (url, _):
        assert caps(url, "--json", "--authorised", "Jo Doe", "--key-from", "MY_KEY") == 1
    out = capsys.readouterr().out
    told = json.loads(out)
    assert (told["schema"], told["authorised"], told["requests"]) == (1, "Jo Doe", 10)
    assert len(told["rows"]) == 17
    assert "s3cret" not in out


@pytest.mark.parametrize(
    ("tokenizer", "told"),
    [("nowhere", "no such file"), ("json:loads", "needs arguments"), ("os:getcwd", "no encode")],
)
def test_a_tokenizer_that_is_none(tokenizer: str, told: str, capsys: pytest.CaptureFixture) -> None:
    assert caps("http://127.0.0.1:1", "--tokenizer", tokenizer) == 2
    assert told in capsys.readouterr().err


def test_a_file_that_is_no_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert caps("http://127.0.0.1:1", "--tokenizer", str(tmp_path)) == 2
    told = capsys.readouterr().err
    assert "is no tokenizer" in told or "needs tokenizers" in told


def test_the_budget_is_no_option_that_can_be_left_out(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["caps", "http://127.0.0.1:1", "--model", "any", "--tokenizer", "served:Letters"])
    assert "--requests, --tokens" in capsys.readouterr().err
