"""The score table: which columns, in which words, and why a cell is empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pandas as pd

from effattack.reporting import words
from effattack.reporting.meta import Meta
from effattack.reporting.nouns import Noun
from effattack.reporting.verdict import KINDS, Row, Verdict, rows_of, same_cell, tag, unit_of
from effattack.reporting.words import missing
from effattack.results.unmeasured import NOT_TIMED, NOTHING_SAVED, WIDEST

OVER_CLEAN = f"/{words.NBSP}clean"
OVER_DENSE = f"/{words.NBSP}dense"
TOO_WIDE = f"not measured: the interval is wider than a factor of {WIDEST:g}"
NO_ENERGY = "no energy counter was read"
ENERGY = "the reason stands in the meta data"
NO_MAX = "the max MACs of this victim are not known: judge it by attacked / clean"
NO_DENSE = "the dense MACs of this victim are not known"
NO_VALUE = "not measured"


class Column(NamedTuple):
    """One column of the score table."""

    group: str
    title: str
    hint: str
    write: Callable[[Row], str]
    by: str
    """The score that orders this column."""
    reason: str | Callable[[Row], str] = NO_VALUE
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


def _no_savings(row: Row) -> str:
    return NO_MAX if missing(row["max_macs"]) else NOTHING_SAVED


def _no_latency(row: Row) -> str:
    return NOT_TIMED if missing(row["latency_low"]) else TOO_WIDE


def _samples(row: Row) -> str:
    return f"{row['samples']:,}"


def _retained(row: Row) -> str:
    return words.retained(row["savings_retained"])


def _percent(group: str, title: str, hint: str, key: str, *rest: Any) -> Column:
    return Column(group, title, hint, lambda row: words.percent(row[key]), key, *rest)


def _ratio(group: str, title: str, hint: str, key: str, *rest: Any) -> Column:
    return Column(group, title, hint, lambda row: words.ratio(row[key]), key, *rest)


def _macs(group: str, title: str, key: str) -> Column:
    return Column(group, title, "", lambda row: words.macs(row[key], like=unit_of(row)), key)


def _clock(row: Row) -> str:
    return words.MISSING if missing(row["clock"]) else str(row["clock"])


def _savings_interval(row: Row) -> str:
    return words.span(row["savings_retained_low"], row["savings_retained_high"]) or words.MISSING


def _interval(row: Row) -> str:
    return words.interval(row["latency_low"], row["latency_high"])


def over_dense(row: Row) -> str:
    """Attacked MACs as a multiple of the dense model's."""
    known = not missing(row["dense_macs"]) and row["dense_macs"]
    return words.ratio(row["macs"] / row["dense_macs"]) if known else words.MISSING


def columns(noun: Noun) -> tuple[Column, ...]:
    """The columns of the score table, of inputs that are called so."""
    work = f"MACs per {noun.one}, mean"
    return (
        Column("Budget", "ε", "l-inf, or as named", words.budget, "eps"),
        Column("Score", "Savings retained", "", _retained, "savings_retained", _no_savings, "key"),
        Column("Score", "Interval", "95 %", _savings_interval, "savings_retained_low", _no_savings),
        _percent("Score", "Attack success", "", "attack_success", _no_savings),
        _percent("Score", "Success, dense", "as papers divide", "attack_success_dense", NO_DENSE),
        _macs(work, "Clean", "clean_macs"),
        _macs(work, "Attacked", "macs"),
        _ratio(work, OVER_CLEAN, "", "macs_ratio"),
        Column(work, OVER_DENSE, "", over_dense, "macs", NO_DENSE),
        _percent("Prediction", "Accuracy", "against the label", "accuracy"),
        _percent("Prediction", "Agreement", "with the clean prediction", "agreement"),
        _ratio("Latency", OVER_CLEAN, "median", "latency_ratio", _no_latency),
        Column("Latency", "Interval", "95 %", _interval, "latency_low", NOT_TIMED),
        _ratio("Latency", "Of means", OVER_CLEAN, "latency_mean_ratio", NOT_TIMED),
        _ratio("Latency", "p95", OVER_CLEAN, "latency_p95_ratio", NOT_TIMED),
        Column("Latency", "Clock", "", _clock, "clock", NOT_TIMED),
        _ratio("Energy", OVER_CLEAN, "", "energy_ratio", ENERGY),
        Column("Data", noun.many.capitalize(), "seeds pooled", _samples, "samples"),
    )


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
                reason = column.reason if isinstance(column.reason, str) else column.reason(row)
                reason = energy if reason == ENERGY else reason
                empty = text == words.MISSING
                if empty:
                    whole = column.group in ("Latency", "Energy")
                    reasons.setdefault(reason, []).append(column.group if whole else column.title)
                value = "" if empty else row[column.by]
                cells.append(Cell(text, reason if empty else "", column.css, value))
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
    return f"{' · '.join(parts)} MACs per {verdict.noun.one}"
