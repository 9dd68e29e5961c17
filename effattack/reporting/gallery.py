"""Example inputs of a victim: clean and under attack, as their kind is shown."""

from __future__ import annotations

from math import nan
from typing import Any, NamedTuple

import pandas as pd

from effattack.reporting import stored, words, work
from effattack.reporting.meta import Meta
from effattack.reporting.nouns import domain_of
from effattack.reporting.shown import Kind, kind_of
from effattack.reporting.stages import HOW, paid_by
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown
from effattack.reporting.verdict import Row, Verdict, rows_of, samples_of, tag
from effattack.reporting.words import missing
from effattack.reporting.written import written
from effattack.results.currency import MACS, currency_of
from effattack.results.frame import ANSWERS

BUDGET = 3_000_000
"""Bytes in all galleries of one report together."""
EXAMPLES = 8


class Cost(NamedTuple):
    """What one input costs, clean and attacked."""

    unit: str
    moved: str
    ratio: str


class Example(NamedTuple):
    """One input under attack."""

    sample: int
    label: str
    """As are the two behind it: of a set, how many members it has."""
    before: str
    after: str
    """Empty where the answers are texts, which stand among what is shown."""
    kept: bool
    costs: list[Cost]
    """In the count that judges, and in MACs."""
    shown: list[Shown]


class Gallery(NamedTuple):
    """The examples of one victim under one attack."""

    verdict: Verdict
    attack: str
    budget: str
    tag: str
    detail: str
    css: str
    how: str
    examples: list[Example]
    note: str


def gallery(samples: pd.DataFrame, scores: pd.DataFrame, verdict: Verdict, meta: Meta) -> Gallery:
    """Examples under the attack that got furthest; of a constant victim, in changing answers."""
    own = samples[samples["victim"].map(str) == verdict.victim]
    row = verdict.attack if verdict.worst else _instead(scores, verdict)
    domain = domain_of(meta, verdict.victim)
    if row is None or own.empty:
        return _none(verdict, "No attack was run on this victim.")
    if (kind := kind_of(domain)) is None:
        return _none(verdict, f"Its inputs ({_told(domain)}) cannot be shown{_as_images(domain)}.")
    pairs = _pairs(own, row, kind, domain)
    if not pairs:
        return _none(verdict, f"No {verdict.noun.many} were stored for this victim.")
    room = int(BUDGET / kind.size(domain) / max(1, samples["victim"].nunique()))
    pairs = pairs[: max(1, min(EXAMPLES, room))]
    strips, paid = kind.show(pairs, domain), [paid_by(pair) for pair in pairs]
    return Gallery(
        verdict=verdict,
        attack=str(row["attack"]),
        budget=words.at(row),
        tag=tag(row),
        detail=strips.detail,
        css=kind.css,
        how=f"{kind.how} {HOW}" if any(paid) else kind.how,
        examples=[
            _example(pair.row, shown + bars, written(pair), domain["answer"])
            for pair, shown, bars in zip(pairs, strips.examples, paid, strict=True)
        ],
        note="",
    )


def _none(verdict: Verdict, note: str) -> Gallery:
    return Gallery(verdict, "", "", "", "", "", "", [], note)


def _told(domain: Description) -> str:
    """The sizes of an input, or its kind where it has none."""
    sides = " × ".join("any" if side is None else str(side) for side in domain["shape"])
    return sides or ("unknown shape" if domain["kind"] == "pixels" else str(domain["kind"]))


def _as_images(domain: Description) -> str:
    return " as images" if domain["kind"] == "pixels" else ""


def _instead(scores: pd.DataFrame, verdict: Verdict) -> Row | None:
    mine = (scores["victim"].map(str) == verdict.victim) & (scores["kind"] == "accuracy")
    return min(rows_of(scores[mine]), key=lambda row: row["agreement"], default=None)


def _pairs(own: pd.DataFrame, row: Row, kind: Kind, domain: Description) -> list[Pair]:
    """Attacked and clean rows whose inputs are stored, in order of the samples."""
    clean = {record["sample"]: record for record in rows_of(own[own["attack"] == "clean"])}
    cell = samples_of(row, own)
    pairs = []
    first = cell[cell["seed"] == cell["seed"].min()].sort_values("sample")
    for record in rows_of(first):
        start = clean.get(record["sample"], {})
        before, after = (_stored(one.get("image"), kind, domain) for one in (start, record))
        if before is not None and after is not None:
            pairs.append(Pair(before, after, start, record))
    return pairs


def _stored(raw: Any, kind: Kind, domain: Description) -> Any:
    return kind.read(bytes(raw), domain) if isinstance(raw, bytes | bytearray) else None


def _example(row: Row, shown: list[Shown], texts: list[Shown], answer: Description) -> Example:
    members = {key: stored.members(row[key], answer) for key in ANSWERS}
    said = {
        key: _named(row[key], answer) if found is None else f"{len(found):,}"
        for key, found in members.items()
    }
    before, after = ("", "") if texts else (said["clean_prediction"], said["prediction"])
    what = "" if members["label"] is None else f" ({answer['noun']})"
    same = row.get("same")
    kept = row["prediction"] == row["clean_prediction"] if missing(same) else same
    return Example(
        sample=int(row["sample"]),
        label=said["label"] + what,
        before=before,
        after=after,
        kept=bool(kept),
        costs=[_cost(row, count) for count in dict.fromkeys((currency_of(row), MACS))],
        shown=shown + texts,
    )


def _named(value: Any, answer: Description) -> str:
    """An answer as its task calls it; classes without names, and of earlier frames, by index."""
    names, text = answer.get("names", ()), str(value)
    return str(names[int(text)]) if text.isdigit() and int(text) < len(names) else text


def _cost(row: Row, count: str) -> Cost:
    clean, attacked = row[f"clean_{count}"], row[count]
    told = work.told(
        {
            **row,
            "currency": count,
            "clean_work": clean,
            "work": attacked,
            "max_work": row[f"max_{count}"],
            "macs_ratio": attacked / clean if clean else nan,
            "equals_n_requests": attacked / clean if clean else nan,
        }
    )
    return Cost(told.unit, told.moved, told.ratio)
