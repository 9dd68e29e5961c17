"""One page from records: at every budget, the victims of a family ranked by savings retained."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from effattack.errors import EffattackError, UsageError
from effattack.reporting import page, words, work
from effattack.reporting.nouns import Noun, noun_of
from effattack.reporting.tables import over_dense
from effattack.reporting.verdict import Row, rows_of, unit_of
from effattack.reporting.words import missing
from effattack.results.records.record import SUFFIX, Record
from effattack.results.scores import score_table

RECORDS = "records"
CLAIMED = "claims"
"""Folders of records: those that rank, and those of attacks whose papers claim a number."""
CLAIMS = "claims.json"


class Entry(NamedTuple):
    """One ranked victim in one budget: what its record claims."""

    record: Record
    row: Row
    """Its score."""
    clean: Row
    address: str
    """Of the record, relative to the page."""
    card: str
    """Of its card; empty where it has none."""


class Board(NamedTuple):
    """All victims in one budget, by family."""

    budget: str
    noun: Noun
    unit: str
    """Of the count that judges all of them."""
    families: Mapping[str, Sequence[Entry]]


class Claim(NamedTuple):
    """What a paper claims, beside what was measured here under the same attack and budget."""

    victim: str
    attack: str
    score: str
    claimed: str
    measured: str
    on: str
    source: str


def load(folder: Path) -> dict[Path, Record]:
    """Every record inside a folder.

    Raises:
        UsageError: if there is none, one cannot be read, or two are of one victim and threat.
        RecordError: if one was changed since it was sealed.
    """
    found: dict[Path, Record] = {}
    known: dict[tuple[str, str], Path] = {}
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        record = Record.load(file)
        same = known.setdefault((record.victim, record.threat), file)
        if same != file:
            raise UsageError(
                f"{same} and {file} are of one victim and threat: keep the better one, as "
                f"effattack verify {file} --against {same} tells"
            )
        found[file] = record
    if not found:
        raise UsageError(f"{folder} holds no records: benchmarks/records.py makes them")
    return found


def render(folder: Path, cards: Path, out: Path) -> tuple[str, int]:
    """The scoreboard as one HTML document, and how many records it shows.

    Args:
        folder: holds ``records``; and ``claims`` and ``claims.json``, if it has them.
        cards: folder with a ``NAME.json`` per victim; linked where it exists.
        out: where the page will stand, which links are relative to.
    """
    records = load(folder / RECORDS)
    entries = [_entry(file, record, cards, out) for file, record in records.items()]
    document = page.render(
        "scoreboard.html",
        boards=_boards(entries),
        claims=_claims(folder),
        unit_of=unit_of,
        work=work,
        over_dense=over_dense,
    )
    return document, len(entries)


def _entry(file: Path, record: Record, cards: Path, out: Path) -> Entry:
    row, clean = _scores(file, record)
    card = cards / f"{Path(row['victim']).name}.json"
    linked = _from(card, out) if card.is_file() else ""
    return Entry(record, row, clean, _from(file, out), linked)


def _scores(file: Path, record: Record) -> tuple[Row, Row]:
    """Of the attacked inputs and of the clean ones.

    Raises:
        UsageError: for claims that contradict each other.
    """
    try:
        rows = {row["kind"]: row for row in rows_of(score_table(record.samples()))}
    except EffattackError as error:
        raise UsageError(f"{file} cannot be shown ({error}): verify it") from error
    return rows["compute"], rows["control"]


def _from(file: Path, out: Path) -> str:
    return Path(os.path.relpath(file, out.parent)).as_posix()


def _boards(entries: Sequence[Entry]) -> list[Board]:
    """One per threat, the largest of each kind first."""
    entries = sorted(entries, key=lambda e: (e.row["threat"], -e.row["eps"]))
    boards = []
    for budget in dict.fromkeys((e.row["threat"], e.row["eps"]) for e in entries):
        own = [e for e in entries if (e.row["threat"], e.row["eps"]) == budget]
        own.sort(key=lambda e: (missing(_retained(e)), -_retained(e)))
        families = sorted({str(e.row["family"]) for e in own})
        about = {e.row["victim"]: e.record.about for e in own}
        boards.append(
            Board(
                words.at(own[0].row),
                noun_of({"victims": about}, own[0].row["victim"]),
                work.unit_in(e.row for e in own),
                {f: [e for e in own if e.row["family"] == f] for f in families},
            )
        )
    return boards


def _retained(entry: Entry) -> float:
    return float(entry.row["savings_retained"])


def _claims(folder: Path) -> list[Claim]:
    """What papers claim, each beside the records of the same attack; nothing where none are."""
    file = folder / CLAIMS
    if not file.is_file():
        return []
    rows = [_scores(path, record)[0] for path, record in load(folder / CLAIMED).items()]
    found = []
    for claim in json.loads(file.read_text(encoding="utf-8")):
        for row in rows:
            same = row["victim"] in claim["victims"] and row["attack"] == claim["attack"]
            if same and row["threat"] == "linf" and abs(row["eps"] - claim["eps"]) < 1e-3:
                found.append(_beside(row, claim))
    return found


def _beside(row: Row, claim: Mapping[str, Any]) -> Claim:
    spread = [words.percent(value, 0) for value in claim["claimed"]]
    return Claim(
        victim=str(row["victim"]),
        attack=f"{row['attack']}, {words.at(row)}",
        score=claim["score"].replace("_", " "),
        claimed=" to ".join(spread),
        measured=words.percent(row[claim["score"]], 0),
        on=claim["on"],
        source=claim["source"],
    )
