"""One page from published scores: victims of a family ranked by savings retained at one ε."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from effattack.budgets import budget_text
from effattack.errors import UsageError
from effattack.reporting import page, words
from effattack.reporting.meta import Meta, section
from effattack.reporting.nouns import shared_noun
from effattack.reporting.tables import over_dense
from effattack.reporting.verdict import Row, Verdict, rows_of, unit_of, verdicts
from effattack.reporting.words import missing
from effattack.results.frame import SCHEMA
from effattack.results.scores import completed_scores

NEEDED = {
    "victim",
    "family",
    "attack",
    "kind",
    "threat",
    "eps",
    "savings_retained",
    "savings_retained_low",
    "reachable",
}
CLAIMS = "claims.json"


class Entry(NamedTuple):
    """One ranked victim."""

    verdict: Verdict
    reachable: float
    """The most MACs ever seen on one of its inputs, in any of its rows."""
    card: str
    """Address of its card, relative to the page; empty where it has none."""


class Claim(NamedTuple):
    """What a paper claims, beside what was measured here under the same attack and budget."""

    victim: str
    attack: str
    score: str
    claimed: str
    measured: str
    on: str
    source: str


class Published(NamedTuple):
    """One published folder: its scores and how they were made."""

    name: str
    scores: pd.DataFrame
    meta: Meta


def load(folder: Path) -> list[Published]:
    """Every folder with ``scores.csv`` and ``meta.json`` inside a folder.

    Raises:
        UsageError: if there is none, or one of another schema.
    """
    found = []
    for file in sorted(folder.glob("*/scores.csv")):
        try:
            scores = pd.read_csv(file)
            meta = json.loads((file.parent / "meta.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{file.parent} cannot be read ({error}): make it again") from error
        lacking = sorted(NEEDED - set(scores.columns))
        schema = meta.get("schema") if isinstance(meta, dict) else None
        if lacking or schema != SCHEMA:
            why = f"it lacks {', '.join(lacking)}" if lacking else f"schema {schema}, not {SCHEMA}"
            raise UsageError(f"{file.parent} was not written by this version ({why}): run again")
        found.append(Published(file.parent.name, completed_scores(scores), meta))
    if not found:
        raise UsageError(
            f"{folder} holds no published scores: effattack run --victim NAME --out {folder}/NAME"
        )
    return found


def render(published: Sequence[Published], eps: float, cards: Path, claims: Path, out: Path) -> str:
    """The scoreboard as one HTML document.

    Args:
        published: what :func:`load` found.
        eps: the l-inf budget of the ranking.
        cards: folder with a ``NAME.json`` per victim; linked where it exists.
        claims: JSON list of what papers claim; may be missing.
        out: where the page will stand, which links are relative to.
    """
    victims = {k: v for one in published for k, v in section(one.meta, "victims").items()}
    entries = [entry for one in published for entry in _entries(one, eps, cards, out)]
    entries.sort(key=lambda entry: (missing(entry.verdict.savings), -entry.verdict.savings))
    families = sorted({entry.verdict.family for entry in entries})
    return page.render(
        "scoreboard.html",
        noun=shared_noun({"victims": victims}),
        families={f: [e for e in entries if e.verdict.family == f] for f in families},
        eps=budget_text("linf", eps),
        claims=_claims(published, claims),
        made=[(one.name, str(one.meta.get("command") or "not recorded")) for one in published],
        unit_of=unit_of,
        over_dense=over_dense,
    )


def _entries(one: Published, eps: float, cards: Path, out: Path) -> list[Entry]:
    judged = one.scores["kind"].isin(["union", "compute", "accuracy"])
    ranked = one.scores[~judged | _at(one.scores, eps)]
    found = []
    for verdict in verdicts(ranked, one.meta):
        own = one.scores[one.scores["victim"].map(str) == verdict.victim]
        card = cards / f"{Path(verdict.victim).name}.json"
        address = Path(os.path.relpath(card, out.parent)).as_posix() if card.is_file() else ""
        found.append(Entry(verdict, float(own["reachable"].max()), address))
    return found


def _at(scores: pd.DataFrame, eps: float) -> pd.Series:
    """Rows within the l-inf ball of this size."""
    return (scores["threat"] == "linf") & ((scores["eps"] - eps).abs() < 1e-9)


def _claims(published: Sequence[Published], file: Path) -> list[Claim]:
    if not file.is_file():
        return []
    rows = [row for one in published for row in rows_of(one.scores)]
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
