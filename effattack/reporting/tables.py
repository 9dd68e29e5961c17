"""The score table: which columns, in which words, and why a cell is empty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from effattack.reporting import words, work
from effattack.reporting.meta import Meta
from effattack.reporting.nouns import Noun
from effattack.reporting.verdict import KINDS, Row, Verdict, rows_of, same_cell, tag, unit_of
from effattack.reporting.words import missing
from effattack.results.currency import unit as unit_of_work
from effattack.results.score import Score
from effattack.results.table import GAINED, MACS, OUTPUT, OVER_CLEAN, known
from effattack.results.unmeasured import NO_ENERGY, Reason, no_dense, no_work

GROUPS = ("Score", MACS, OUTPUT, GAINED, "Answer", "Latency", "Energy", "Attacker", "Also", "Data")
"""Headings above the columns, in order; others come last."""
OVER_DENSE = f"/{words.NBSP}dense"


class Column(NamedTuple):
    """One column of the score table."""

    group: str
    title: str
    hint: str
    write: Callable[[Row], str]
    by: str
    """The score that orders this column."""
    empty: Callable[[Row], Reason]
    css: str = ""


class Cell(NamedTuple):
    """One cell: its words, or the reason why it is empty."""

    text: str
    reason: str = ""
    css: str = ""
    value: Any = ""
    """What orders the column; empty where the cell is."""


class Line(NamedTuple):
    """One row of the score table."""

    attack: str
    tag: str
    worst: bool
    judged: bool
    cells: list[Cell]


class Block(NamedTuple):
    """The rows of one victim under a heading of their own."""

    verdict: Verdict
    costs: str
    lines: list[Line]


def over_dense(row: Row) -> str:
    """Attacked MACs as a multiple of the dense model's."""
    known = not missing(row["dense_macs"]) and row["dense_macs"]
    return words.ratio(row["macs"] / row["dense_macs"]) if known else words.MISSING


def columns(noun: Noun, scores: pd.DataFrame) -> list[Column]:
    """The budget, every score that is shown, and attacked MACs beside the dense ones; before them
    the work that judges, where that is not MACs."""
    found = [Column("Budget", "ε", "l-inf, or as named", words.budget, "eps", lambda _: Reason(""))]
    for score in shown(scores):
        if score.name == "clean_macs":
            found += _judging(rows_of(scores))
        found += _columns(score)
        if score.name == "macs_ratio":
            found.append(Column(MACS, OVER_DENSE, "", over_dense, "macs", no_dense))
    return [
        column._replace(group=noun.fill(column.group), title=noun.fill(column.title))
        for column in found
    ]


def _judging(rows: Sequence[Row]) -> Iterator[Column]:
    """The work of victims that are judged by another count than MACs; nothing where there are
    none."""
    if all(map(work.by_macs, rows)):
        return
    unit = work.unit_in(rows)
    several = unit == work.WORK
    heading = f"{work.capital(unit)} per {{one}}, mean"
    for title, by, write in (
        ("Clean", "clean_work", lambda row: work.told(row).clean),
        ("Attacked", "work", lambda row: work.told(row).attacked),
        ("Max", "max_work", lambda row: work.told(row).most),
        (OVER_CLEAN, "equals_n_requests", lambda row: work.told(row).ratio),
    ):
        yield Column(heading, title, "", write, by, no_work)
    if several:
        yield Column(heading, "Counted in", "", unit_of_work, "currency", no_work)


def told(score: Score, scores: pd.DataFrame) -> bool:
    """Whether a table of these rows has something to say of a score."""
    has = score.name in scores and scores[score.name].notna().any()
    return bool(has) or not score.shown.sparse


def shown(scores: pd.DataFrame) -> list[Score]:
    """The scores that tables of these rows show, in their order there."""
    found = [score for score in known().values() if score.shown.group and told(score, scores)]
    order = [*GROUPS, *(score.shown.group for score in found)]
    found.sort(key=lambda score: (order.index(score.shown.group), not score.shown.first))
    return found


def flat(score: Score, row: Row, noun: Noun) -> str:
    """A score in a table without headings: a latency has its interval beside it."""
    timed = score.name == "latency_ratio"
    return words.latency(row, noun.many) if timed else _written(score, row)


def _columns(score: Score) -> Iterator[Column]:
    """That of a score, and that of its interval."""
    shown, empty = score.shown, score.empty
    css = "key" if score.name == "savings_retained" else ""
    write = partial(_written, score)
    yield Column(shown.group, score.title, shown.hint, write, score.name, empty, css)
    if shown.interval:
        _, low, _ = score.columns
        spread = partial(_spread, score)
        yield Column(shown.group, "Interval", "95 %", spread, low, empty)


def _written(score: Score, row: Row) -> str:
    return words.score(score, row, unit_of(row))


def _spread(score: Score, row: Row) -> str:
    _, low, high = (row[column] for column in score.columns)
    span = words.span(low, high) if score.share else words.interval(low, high)
    return span or words.MISSING


def groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """The headings above the columns, each with its width."""
    spans: dict[str, int] = {}
    for column in columns:
        spans[column.group] = spans.get(column.group, 0) + 1
    return list(spans.items())


def blocks(
    scores: pd.DataFrame, found: list[Verdict], meta: Meta, columns: Sequence[Column]
) -> tuple[list[Block], list[str]]:
    """The score table, victim by victim, and the reasons for its empty cells."""
    energy = str(meta.get("energy") or NO_ENERGY)
    rows = rows_of(scores)
    table: list[Block] = []
    reasons: dict[str, list[str]] = {}
    for verdict in found:
        own = [row for row in rows if str(row["victim"]) == verdict.victim]
        own.sort(key=lambda row: KINDS.index(row["kind"]))
        lines = []
        for row in own:
            cells = []
            for column in columns:
                text = column.write(row)
                if text != words.MISSING:
                    cells.append(Cell(text, "", column.css, row.get(column.by)))
                    continue
                why, _, brief = column.empty(row)
                reason = energy if why == NO_ENERGY else brief or why
                whole = column.group in ("Latency", "Energy")
                reasons.setdefault(reason, []).append(column.group if whole else column.title)
                cells.append(Cell(text, reason, column.css))
            worst = verdict.worst is not None and same_cell(row, verdict.worst)
            counts = row.get("inside", row["kind"] == "compute")
            lines.append(Line(str(row["attack"]), tag(row), worst, bool(counts), cells))
        table.append(Block(verdict, _costs(verdict), lines))
    notes = [f"{' · '.join(dict.fromkeys(names))}: {why}" for why, names in reasons.items()]
    return table, notes


def _costs(verdict: Verdict) -> str:
    row = verdict.shown
    if row is None:
        return ""
    parts = [
        f"{name} {words.macs(row[key]) if not missing(row[key]) else 'unknown'}"
        for name, key in (("dense", "dense_macs"), ("max", "max_macs"))
    ]
    if not work.by_macs(row):
        judging = work.told(row)
        parts.insert(0, f"max {judging.most} {judging.unit}")
    return f"{' · '.join(parts)} MACs per {verdict.noun.one}"
