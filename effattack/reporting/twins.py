"""Whether what ships decides as the model that attacks were crafted on: said before all else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from effattack.reporting import words
from effattack.reporting.meta import Meta
from effattack.reporting.nouns import Noun, noun_of

if TYPE_CHECKING:
    import pandas as pd

ENOUGH = 0.99
"""Share of inputs below which every other number is of another model than was attacked."""


class Beside(NamedTuple):
    """An artefact beside its twin, in a sentence."""

    victim: str
    told: str
    enough: bool
    """Whether they are alike on at least ``ENOUGH`` of the inputs, clean and attacked."""


def beside_twins(scores: pd.DataFrame, meta: Meta) -> list[Beside]:
    """One sentence per victim that has a twin, in the order of the scores.

    Args:
        scores: the score table; those of earlier versions tell of no twins.
        meta: how they were made.
    """
    if "twin_agreement" not in scores:
        return []
    known = scores[scores.twin_agreement.notna()]
    return [
        _beside(str(victim), rows, noun_of(meta, str(victim)))
        for victim, rows in known.groupby("victim", sort=False)
    ]


def _beside(victim: str, rows: pd.DataFrame, noun: Noun) -> Beside:
    """Of the clean inputs, and under attack: of the union; where there is none, of all rows."""
    clean, unions = rows[rows.attack == "clean"], rows[rows.kind == "union"]
    attacked = unions if len(unions) else rows[rows.attack != "clean"]
    parts = [(f"of clean {noun.many}", clean), ("under attack", attacked)]
    worst = [(where, own.loc[own.twin_agreement.idxmin()]) for where, own in parts if len(own)]
    told = "decides and answers as its twin on " + " and on ".join(
        f"{words.percent(row.twin_agreement)} {where}{_interval(row)}" for where, row in worst
    )
    enough = all(row.twin_agreement >= ENOUGH for _, row in worst)
    if not enough:
        unlike = [f"{row.unlike_twin} {where}" for where, row in worst if row.unlike_twin]
        told += (
            ", so every other number here is of another model than was attacked; unlike its twin "
            f"on inputs {'; '.join(unlike)}"
        )
    return Beside(victim, told, enough)


def _interval(row: pd.Series) -> str:
    span = words.span(row.twin_agreement_low, row.twin_agreement_high)
    return f" ({span})" * bool(span)
