"""The scores as Markdown: for the step summary of a CI run, a comment, or a model card."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import pandas as pd

from effattack.reporting import words, work
from effattack.reporting.brackets import brackets
from effattack.reporting.comparison import Compared, compared
from effattack.reporting.latency import fired
from effattack.reporting.meta import Meta, section
from effattack.reporting.nouns import Noun, shared_noun, with_domains
from effattack.reporting.tables import flat, over_dense, shown
from effattack.reporting.twins import Beside, beside_twins
from effattack.reporting.verdict import (
    KINDS,
    Row,
    Verdict,
    alarms,
    rows_of,
    tag,
    verdicts,
)
from effattack.reporting.words import missing
from effattack.results.score import Score
from effattack.results.table import headlines
from effattack.results.union import UNION
from effattack.results.unmeasured import NO_ENERGY

HEADLINE = (
    "Victim",
    "Savings retained",
    "Found by",
    "{work} per {one}, clean → attacked",
    "max {work}",
    "attacked / clean",
    "attacked / dense",
    "Accuracy (label), clean → attacked",
    "Agreement (clean prediction)",
    "Latency, attacked / clean",
)
AGAINST = ("Against the first, in points", "Which means")
"""Of a comparison, behind the savings retained."""
ALL = ("Victim", "Attack", "Kind", "ε")
"""Of every row, before its scores."""
MOST = 60_000
"""Bytes that a comment takes everywhere; a step summary of GitHub takes 1 MiB."""
LEFT = {"Victim", "Attack", "Kind", "Found by", "Clock", "Knows", "Which means"}
"""Columns of words; the others are numbers."""


def summary(scores: pd.DataFrame, meta: Meta) -> str:
    """A headline table with one row per victim, and all scores folded under it.

    Names are written as code, so that nothing in them is taken for markup, a link or a mention.
    """
    scores = with_domains(scores, meta)
    found = verdicts(scores, meta)
    noun = shared_noun(meta, [verdict.victim for verdict in found])
    unit = work.unit_in(verdict.shown for verdict in found if verdict.shown)
    headline = [title.format(one=noun.one, work=unit) for title in HEADLINE]
    headline += [score.flat for score in headlines()]
    parts = ["### effattack: savings retained under the worst inside the budget"]
    parts += [_twin(beside) for beside in beside_twins(scores, meta)]
    if errors := alarms(scores, meta):
        parts.append("\n".join(f"- **Read this first:** {plain(error)}" for error in errors))
    rows = [_headline(verdict, meta, unit) for verdict in found]
    if "compared" in meta:
        parts.append(_beside(headline, rows, compared(found)))
    else:
        parts.append(_table(headline, rows))
    notes = [
        f"- {code(verdict.victim)}: {plain(told)}"
        for verdict in found
        for told in filter(None, (verdict.note, *verdict.caveats))
    ]
    notes += [
        f"- {code(verdict.victim)}: {plain(bracket.told)}"
        for verdict in found
        for bracket in brackets(scores, verdict, meta)
    ]
    notes += [f"- {plain(str(note))}" for note in meta.get("notes") or ()]
    if notes:
        parts.append("\n".join(notes))
    parts.append(
        "Savings retained = 1 − attack success = 1 − (attacked − clean) / (max − clean), with its "
        f"95 % interval over {noun.many}. "
        "Accuracy is against the label, agreement with the same model's clean prediction. "
        f"The verdict is the union: {noun.one} by {noun.one}, the worst of every row inside the "
        "budget, whoever found it; rows outside never count."
    )
    if len(scores):
        lines = sorted(rows_of(scores), key=lambda row: KINDS.index(row["kind"]))
        lines.sort(key=lambda row: [v.victim for v in found].index(str(row["victim"])))
        written = dict(_written(noun, scores))
        table = _table([*ALL, *written], [_line(row, written.values()) for row in lines])
        parts.append(f"<details><summary>All scores</summary>\n\n{table}\n\n</details>")
        if scores["energy_ratio"].isna().all():
            parts.append(f"Energy: {plain(str(meta.get('energy') or NO_ENERGY))}")
    parts.append(_made(meta))
    return "\n\n".join(part for part in parts if part) + "\n"


def fitting(scores: pd.DataFrame, meta: Meta, most: int = MOST) -> str:
    """The summary in at most so many bytes; what has to go is named."""
    text = summary(scores, meta)
    if len(text.encode()) > most:
        gone = f"All {len(scores)} scores are too many for here: they are in `scores.csv`."
        text = re.sub("<details>.*</details>", gone, text, flags=re.DOTALL)
    if len(text.encode()) > most:
        gone = "\n\nCut off here: the rest is in `report.html`.\n"
        kept = text.encode()[: most - len(gone.encode())].decode(errors="ignore")
        text = kept.rpartition("\n")[0] + gone
    return text


def _beside(headline: Sequence[str], rows: Sequence[list[str]], changes: Sequence[Compared]) -> str:
    """The headline table of a comparison, and how to read its change."""
    told = [
        [*row[:2], one.change, one.said, *row[2:]] for row, one in zip(rows, changes, strict=True)
    ]
    return (
        _table([*headline[:2], *AGAINST, *headline[2:]], told) + "\n\n"
        "Against the first: savings retained minus those of the first victim, in percentage points "
        "with a 95 % interval; where it contains 0, the difference is inside the noise."
    )


def _twin(beside: Beside) -> str:
    first = "" if beside.enough else "**Read this first:** "
    return f"{first}{code(beside.victim)} {plain(beside.told)}."


def _headline(verdict: Verdict, meta: Meta, shared: str) -> list[str]:
    row, worst, clean = verdict.shown, verdict.worst, verdict.clean
    savings = f"**{words.headline_percent(verdict.savings)}**"
    if missing(verdict.savings):
        savings = words.MISSING
    elif worst and (span := words.span(*(worst[f"savings_retained_{b}"] for b in ("low", "high")))):
        savings += f" ({span})"
    if row is None:
        lacking = len(HEADLINE) + len(headlines()) - 3
        return [code(verdict.victim), savings, "not scored", *[words.MISSING] * lacking]
    told = work.told(row)
    moved = told.moved if worst else told.clean
    beside = "" if work.by_macs(row) else f" (MACs {work.macs(row).ratio})"
    named = f" {told.unit}" if shared == work.WORK else ""
    accuracy = words.percent(row["accuracy"])
    if worst and clean:
        accuracy = f"{words.percent(clean['accuracy'])} → {accuracy}"
    timing = verdict.timed or row
    timed = not missing(timing["latency_ratio"])
    name = f"{code(verdict.by)}, {words.at(row)}" if worst else verdict.by
    return [
        code(verdict.victim),
        savings,
        name,
        moved + named,
        told.most + named,
        told.ratio + beside,
        over_dense(row),
        accuracy,
        words.percent(row["agreement"]),
        words.latency(timing, verdict.noun.many)
        + (", no verdict: A/A fired" if timed and fired(verdict.victim, meta) else ""),
        *(_cell(score, verdict.noun, row) for score in headlines()),
    ]


def _line(row: Row, written: Iterable[Callable[[Row], str]]) -> list[str]:
    return [
        code(str(row["victim"])),
        code(str(row["attack"])),
        tag(row) or ("verdict" if row["kind"] == UNION else "compute attack"),
        words.budget(row),
        *(write(row) for write in written),
    ]


def _written(noun: Noun, scores: pd.DataFrame) -> Iterator[tuple[str, Callable[[Row], str]]]:
    """Of every row: title and writer of its scores, and of attacked MACs beside the dense ones;
    before them the work that judges, where that is not MACs."""
    if (unit := work.unit_in(rows_of(scores))) != "MACs":
        yield f"{work.capital(unit)}, clean → attacked", lambda row: work.told(row).whole
        yield f"{work.capital(unit)} / clean", lambda row: work.told(row).ratio
    for score in shown(scores):
        if score.shown.flat is not None:
            yield score.flat, partial(_cell, score, noun)
        if score.name == "macs_ratio":
            yield "MACs / dense", over_dense


def _cell(score: Score, noun: Noun, row: Row) -> str:
    """A score of a row; a text, which may be of a user's making, as code."""
    text = flat(score, row, noun)
    return code(text) if score.shown.form == "text" and text != words.MISSING else text


def _made(meta: Meta) -> str:
    versions, machine = section(meta, "versions"), section(meta, "environment")
    facts = [f"{name} {value}" for name, value in versions.items()]
    facts += [str(machine[key]) for key in ("device", "cpu") if machine.get(key)]
    if meta.get("seeds"):
        facts.append("seeds " + ", ".join(map(str, meta["seeds"])))
    if meta.get("data"):
        facts.append(str(meta["data"]))
    lines = [plain(" · ".join(facts))] if facts else []
    if meta.get("command"):
        lines.append(code(str(meta["command"])))
    return "Made with " + ", by ".join(lines) if lines else ""


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    align = ["---" if title in LEFT else "---:" for title in header]
    lines = [header, align, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def code(text: str) -> str:
    """Text as a code span that also survives in a table."""
    text = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def plain(text: str) -> str:
    """Text in which nothing is markup."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text).replace("@", "@\u200b")
