"""The Markdown summary: its rows, its size, and names that are not taken for markup."""

from __future__ import annotations

import re

import frames
import numpy as np
import pandas as pd
import pytest

from effattack.reporting.card import card
from effattack.reporting.markdown import code, fitting, plain, summary


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return frames.scores(frames.samples(40))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def test_one_row_per_victim_and_one_per_score(scores: pd.DataFrame) -> None:
    text = summary(scores, frames.meta())
    assert len(rows(text)) == 2 + len(frames.VICTIMS) + 2 + len(scores)
    assert {len(row) for row in rows(text.partition("<details>")[0])} == {12}
    assert {len(row) for row in rows(text.partition("<details>")[2])} == {16}
    worst = scores[(scores.kind == "union") & (scores.victim == "digits_vit_ats")]
    savings = f"{worst.savings_retained.min():.0%}".replace("%", ".%")
    row = rf"\| `digits_vit_ats` \| \*\*{savings}\*\* \(\d+ to \d+.%\) \| "
    row += r"`Slowdown found \d+ of 40, .*`, ε = 8/255 \|"
    assert re.search(row, text)
    assert "| `digits_vit_int8` | **100\u00a0%** | none applies |" in text


def test_says_what_the_numbers_are(scores: pd.DataFrame) -> None:
    text = summary(scores, frames.meta())
    for words in (
        "Accuracy is against the label, agreement with the same model's clean prediction",
        "no verdict: A/A fired",
        "Energy: no energy counter is reachable",
        "`effattack run --samples 100 --out effattack-report`",
    ):
        assert words in text
    assert len(text.encode()) < 64_000


@pytest.mark.parametrize("most", [60_000, 6_000, 2_000, 500])
def test_it_fits(scores: pd.DataFrame, most: int) -> None:
    text = fitting(scores, frames.meta(), most)
    assert len(text.encode()) <= most
    assert text.startswith("### effattack")
    whole = text == summary(scores, frames.meta())
    assert whole != ("`scores.csv`" in text or "Cut off here" in text)


def test_a_card_says_under_which_threat_and_how_sure() -> None:
    samples = frames.samples(40)
    found, meta = frames.scores(samples), frames.meta()
    text = card(samples, found, meta)
    assert text.startswith("## Robustness of efficiency\n")
    assert {len(row) for row in rows(text)} == {2}
    assert re.search(
        r"Savings retained \| \*\*\d+.%\*\* \(95 % interval over images: \d+ to \d+", text
    )
    assert "(constant)" in text
    assert "every pixel within ε = 8/255" in text
    assert "| Images | 40, seeds" in text
    patch = card(*(f.assign(threat="patch@corner", eps=16.0) for f in (samples, found)), meta)
    assert "| Threat | patch@corner 16 px, pixels in [0, 1] |" in patch


def test_errors_come_first(scores: pd.DataFrame) -> None:
    meta = frames.meta()
    meta["checks"][0]["passed"] = False
    text = summary(scores, meta)
    assert text.index("**Read this first:** self-check failed") < text.index("| Victim")


def test_hostile_names(scores: pd.DataFrame) -> None:
    name = "<script>`|`\n@all [x](y)"
    hostile = scores.assign(victim=name, clock=name)
    meta = frames.meta() | {"data": name, "energy": name, "command": name}
    text = summary(hostile, meta)
    assert {len(row) for row in rows(text)} == {12, 16}
    outside = re.sub(r"``.*?``(?!`)", "", text)
    assert "<script>" not in outside
    assert "@all" not in outside


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", "`a\\|b`"), ("a`b", "``a`b``"), ("`a", "`` `a ``"), ("a\nb", "`a b`"), ("", "`  `")],
)
def test_code(text: str, expected: str) -> None:
    assert code(text) == expected


def test_plain() -> None:
    assert plain("<b>*x*_\n@me & `|`") == "&lt;b&gt;\\*x\\*\\_ @\u200bme &amp; \\`\\|\\`"


def test_unknown_max_and_missing_keys(scores: pd.DataFrame) -> None:
    unknown = ["max_macs", "attack_success", "savings_retained", "latency_ratio"]
    text = summary(scores.assign(**dict.fromkeys(unknown, np.nan)), {"schema": 1})
    assert "Its max MACs are not known" in text
    assert "nan" not in text
    assert summary(scores[:0], {"schema": 1}).startswith("### effattack")
    assert summary(pd.DataFrame(), {"schema": 1}).startswith("### effattack")
