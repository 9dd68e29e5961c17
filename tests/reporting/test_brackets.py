"""Brackets in reports: three parts of the savings, for one victim and one threat."""

from __future__ import annotations

import re

import frames
import numpy as np
import pandas as pd
import pytest

from effattack.reporting.brackets import brackets, told, track
from effattack.reporting.html import render
from effattack.reporting.markdown import summary
from effattack.reporting.nouns import IMAGE
from effattack.reporting.verdict import rows_of, verdicts
from effattack.results.scores import score_table
from effattack.results.union import with_unions

VICTIM = "digits_vit_ats"
MOST = 9.61e6


@pytest.fixture(scope="module")
def samples() -> pd.DataFrame:
    return frames.samples(30)


def certified(samples: pd.DataFrame, share: float) -> pd.DataFrame:
    """One victim's rows of the budget get a bound: ``share`` of what its worst input left."""
    union = with_unions(samples)
    union = union[(union.attack == "union") & (union.victim == VICTIM)].set_index("sample")
    bound = MOST - share * (MOST - union.work)
    own = (samples.victim == VICTIM) & (samples.threat == "linf")
    return samples.assign(
        certified_work=samples["sample"].map(bound).where(own),
        certified_clean_work=samples.clean_macs.where(own),
        certified_max_work=samples.max_macs.where(own),
    )


def union_of(scores: pd.DataFrame) -> dict:
    return next(row for row in rows_of(scores[scores.victim == VICTIM]) if row["kind"] == "union")


def test_the_scores_are_those_of_the_columns(samples: pd.DataFrame) -> None:
    scores = score_table(certified(samples, 0.5))
    row = union_of(scores)
    own = with_unions(certified(samples, 0.5))
    own = own[(own.attack == "union") & (own.victim == VICTIM)]
    kept = (own.certified_max_work - own.certified_work).sum()
    saved = (own.certified_max_work - own.certified_clean_work).sum()
    assert row["certified_retained"] == pytest.approx(kept / saved)
    assert row["certified_factor"] == pytest.approx(
        own.certified_work.sum() / own.certified_clean_work.sum()
    )
    assert row["certified_retained"] < row["savings_retained"]
    others = scores[
        (scores.victim != VICTIM) | (scores.threat != "linf") & (scores.kind != "union")
    ]
    assert others.certified_retained.isna().all()


def test_the_bar_has_three_parts(samples: pd.DataFrame) -> None:
    row = union_of(score_table(certified(samples, 0.5)))
    drawing = str(track(row, IMAGE))
    bars = dict(re.findall(r'class="(\w+)" x="[\d.]+" y="8" width="([\d.]+)"', drawing))
    assert bars.keys() == {"spent", "taken", "certified"}
    widths = {name: float(width) / 300 * MOST for name, width in bars.items()}
    assert widths["spent"] == pytest.approx(row["clean_macs"], rel=1e-3)
    assert widths["spent"] + widths["taken"] == pytest.approx(row["macs"], rel=1e-3)
    assert widths["certified"] == pytest.approx((MOST - row["macs"]) / 2, rel=1e-2)
    assert "certified" not in str(track(union_of(score_table(samples)), IMAGE))


def test_pages_say_it_and_where_none_is_known(samples: pd.DataFrame) -> None:
    known = certified(samples, 0.5)
    meta = frames.meta()
    meta["certificates"] = {
        VICTIM: [{"threat": "linf", "eps": 8 / 255, "kind": "exact", "seconds": 3.0, "error": 0.0}]
    }
    scores = score_table(known)
    said = told(union_of(scores), meta, attacked=True)
    assert "attacks left" not in told(union_of(scores), meta, attacked=False)
    assert re.fullmatch(
        r"ε = 8/255: [\d.]+\s% of its savings are certified, and attacks left [\d.]+\s% "
        r"\(exact, 3 s\)",
        said,
    )
    page = render(known, scores, meta)
    assert said in page
    assert "certified: no attack in the budget takes it" in page
    assert "no certificate known, ε = 8/255" in page  # of the other victims
    assert "savings are certified" in summary(scores, meta)
    bare = render(samples, score_table(samples), frames.meta())
    assert "box certified" not in bare


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "no certificate at this budget"), (None, "costs at most ×")]
)
def test_no_certificate_is_said(samples: pd.DataFrame, share: float | None, words: str) -> None:
    known = certified(samples, share or 0.0)
    if share is None:
        known["certified_max_work"] = np.nan  # a cap, which says nothing of savings
    scores = score_table(known)
    verdict = next(one for one in verdicts(scores, frames.meta()) if one.victim == VICTIM)
    (bracket,) = brackets(scores, verdict, frames.meta())
    assert words in bracket.told
    assert bracket.leads
