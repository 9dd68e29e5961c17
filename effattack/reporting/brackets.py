"""Brackets: what attacks took, what a certificate keeps, and what nobody knows between the two.

A bracket is of one victim, its inputs and one threat; so only a budget that has both is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import NamedTuple

import pandas as pd

from effattack.reporting import plots, words
from effattack.reporting.meta import Meta, section
from effattack.reporting.nouns import Noun
from effattack.reporting.svg import Drawing
from effattack.reporting.verdict import Row, Verdict, rows_of, same_cell
from effattack.reporting.words import missing
from effattack.results.currency import unit, work_of
from effattack.results.union import UNION


class Bracket(NamedTuple):
    """What is said of one victim in one budget."""

    told: str
    drawing: Drawing | str
    leads: bool
    """Whether it is of the budget that the verdict is of, whose bar stands there already."""


def brackets(scores: pd.DataFrame, verdict: Verdict, meta: Meta) -> list[Bracket]:
    """Of every budget of a victim that has a certificate."""
    worst = verdict.worst
    own = scores[scores["victim"].map(str) == verdict.victim] if len(scores) else scores
    return [
        Bracket(
            told(row, meta, attacked=worst is not None),
            track(row, verdict.noun),
            worst is not None and same_cell(row, worst),
        )
        for row in rows_of(own)
        if row["kind"] == UNION and has_certificate(row)
    ]


def has_certificate(row: Row) -> bool:
    """Whether a certificate bounds what a row may cost."""
    return not missing(row.get("certified_factor"))


def told(row: Row, meta: Meta, *, attacked: bool) -> str:
    """A bracket in a sentence, behind its budget; where nothing attacked, its lower end.

    Both ends are shares of the same savings: of a randomised victim, of those without its noise.
    """
    least, bounds = row["certified_retained"], _bounds(row)
    about = _about(row, meta)
    if missing(least):
        factor = words.ratio(row["certified_factor"])
        said = f"one request costs at most {factor} a clean one, certified"
    elif least <= words.SLACK:
        said = "no certificate at this budget: the bound reaches the ceiling"
    else:
        said = f"{words.at_least(least)} of its savings are certified"
        if attacked and bounds and not missing(work_of(row).attacked):
            work = work_of(row)
            left = (work.most - work.attacked) / (work.most - bounds.clean)
            said += f", and attacks left {words.retained(left)}"
    return f"{words.at(row)}: {said}{f' ({about})' if about else ''}"


def track(row: Row, noun: Noun) -> Drawing | str:
    """The bar of a row: spent, taken, and behind what is certified; of MACs, or what judges."""
    work = work_of(row)
    if missing(work.attacked) or missing(work.clean):
        return ""
    dense = row["dense_macs"] if unit(row) == "MACs" else nan
    label = (
        f"mean {unit(row)} per {noun.one}: clean {words.macs(work.clean)}, "
        f"attacked {words.macs(work.attacked)}, dense {words.macs(dense)}, "
        f"max {words.macs(work.most)}"
    )
    kept = nan
    if bounds := _bounds(row):
        kept = work.most - bounds.most
        label += f"; certified to stay below {words.macs(bounds.most)}"
    return plots.track(work.clean, work.attacked, dense, work.most, label, kept)


class _Bounds(NamedTuple):
    """Of a certificate, in means over inputs: the clean work, and the most of any attacked one."""

    clean: float
    most: float


def _bounds(row: Row) -> _Bounds | None:
    """What its two scores say together: with retained R, factor F and max M, the clean work is
    M (1 - R) / (F - R); None where savings are not bounded."""
    least = row.get("certified_retained", nan)
    if missing(least):
        return None
    factor, work = row["certified_factor"], work_of(row)
    clean = work.most * (1 - least) / (factor - least) if factor - least > 1e-9 else work.clean
    return _Bounds(clean, factor * clean)


def _about(row: Row, meta: Meta) -> str:
    """How the certificate of a row was found, and how sure it is."""
    known = section(meta, "certificates").get(str(row["victim"])) or []
    for one in known:
        if isinstance(one, Mapping) and (one.get("threat"), one.get("eps")) == (
            row["threat"],
            row["eps"],
        ):
            error = f", error {one['error']:g}" if one.get("error") else ""
            return f"{one.get('kind')}, {one.get('seconds', 0):.0f} s{error}"
    return ""
