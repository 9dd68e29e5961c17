"""The words of the report and what they mean, for the inputs that it is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from effattack.reporting import work
from effattack.reporting.nouns import Noun
from effattack.reporting.tables import told
from effattack.reporting.verdict import rows_of
from effattack.results.currency import unit
from effattack.results.table import known

BUDGETS = {
    "pixels": (
        "the largest change of any pixel, in [0, 1] pixels; “pixel box” lets every pixel take any "
        "value"
    ),
    "series": (
        "the largest change of any sample, in the unit of the series; “box” lets every sample take "
        "any value of its range"
    ),
    "tokens": "how many tokens or characters may be added or changed",
    "graph": "how many edges may be added around the entity that is asked about",
}
"""What ε is, by kind of domain."""


class Term(NamedTuple):
    """A word of the report and what it means, in one line."""

    word: str
    meaning: str


def terms(noun: Noun, kinds: Iterable[str], scores: pd.DataFrame) -> tuple[Term, ...]:
    """The glossary of a report about such inputs, of domains of these kinds."""
    explained = [s for s in known().values() if s.shown.meaning and told(s, scores)]
    judging = dict.fromkeys(unit(row) for row in rows_of(scores) if not work.by_macs(row))
    return (
        *(
            Term(
                count,
                "what judges here: a count of the deployed model, audited as it runs, as MACs "
                "misprice what it costs; MACs stand beside",
            )
            for count in judging
        ),
        Term(
            "MACs",
            f"multiply-accumulates one {noun.one} really costs, counted while the deployed model "
            "runs; the papers print the same number as “GFLOPs”",
        ),
        Term("dense MACs", "the same model without its saving mechanism"),
        Term(
            "max MACs",
            "the most the efficient model can be made to execute; may exceed dense, because "
            "deciding costs too",
        ),
        Term(
            "union",
            f"the verdict: {noun.one} by {noun.one}, the worst of every row inside the budget, "
            "whoever found it; right only where every row is right",
        ),
        *(Term(score.words, noun.fill(score.shown.meaning)) for score in explained),
        Term("ε", f"the attacker's budget: {_sizes(kinds)}"),
    )


def _sizes(kinds: Iterable[str]) -> str:
    known = {kind: BUDGETS[kind] for kind in kinds if kind in BUDGETS}
    if len(known) == 1:
        return next(iter(known.values()))
    told = "; ".join(f"of {kind}, {size}" for kind, size in known.items())
    return told or "how much the threat lets him change, in its own unit"
