"""The headline of a report: per victim, the union that left it the least savings.

Scores of earlier versions name no union; there it is the worst compute attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from effattack.reporting.meta import Meta, checks, section, skipped
from effattack.reporting.nouns import IMAGE, Noun, noun_of
from effattack.reporting.words import SLACK, at, missing, percent
from effattack.results.caveats import caveats
from effattack.results.limits import ATTACKS, saves_nothing, unmeasured_because
from effattack.results.union import UNION
from effattack.results.unmeasured import UNKNOWN_WORK, no_savings, unknown_max, unknown_work

Row = dict[str, Any]
"""One row of the scores, by column."""

KINDS = ("union", "compute", "accuracy", "control")
TAGS = {"accuracy": "accuracy attack", "control": "control"}
"""What to call kinds of attack that do not seek work."""


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The rows of a frame as plain dictionaries."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def same_cell(one: Row, other: Row) -> bool:
    """Whether two rows of one victim are of the same attack within the same budget."""
    return all(one[key] == other[key] for key in ("attack", "threat", "eps"))


def samples_of(row: Row, samples: pd.DataFrame) -> pd.DataFrame:
    """Of a victim's samples, those behind a row of its scores."""
    same = [samples[key] == row[key] for key in ("attack", "threat", "eps")]
    return samples[same[0] & same[1] & same[2]]


def series(row: Row) -> str:
    """The attack of a row, with its threat where that is not l-inf: what one colour stands for."""
    attack, threat = str(row["attack"]), str(row["threat"])
    usual = threat.partition("@")[0] in ("linf", "none", "box")
    return attack if usual else f"{attack} {threat}"


def tag(row: Row) -> str:
    """What a table says beside an attack: its kind, and whether it keeps to no asked budget."""
    outside = "outside the budget" if "inside" in row and not row["inside"] else ""
    return ", ".join(filter(None, [TAGS.get(row["kind"], ""), outside]))


def unit_of(row: Row) -> float:
    """The number of MACs whose unit suits the whole row: its largest."""
    known = [row[key] for key in ("max_macs", "dense_macs", "macs") if not missing(row[key])]
    return float(max(known, default=1.0))


@dataclass(frozen=True)
class Verdict:
    """What is said first about one victim."""

    victim: str
    family: str
    constant: bool
    worst: Row | None
    """The worst union; None if no attack ran inside a budget."""
    clean: Row | None
    """The row of the clean control."""
    savings: float
    """Savings retained; NaN where max MACs are unknown, nothing was saved or nothing scored."""
    note: str = ""
    """Why there is no savings retained, or why there is nothing to take back."""
    attack: Row | None = None
    """The attack that got furthest inside a budget: its inputs and timings stand for the worst."""
    caveats: tuple[str, ...] = ()
    """What else a reader must know of the score."""
    noun: Noun = IMAGE
    """What to call its inputs."""

    @property
    def by(self) -> str:
        """Who found the worst inputs."""
        if self.worst is None:
            return "none applies"
        if self.worst["kind"] != UNION:
            return str(self.worst["attack"])
        if unknown_work(self.worst):
            return UNKNOWN_WORK
        return str(self.worst["found_by"]) if self.found else "nothing cost more than clean"

    @property
    def found(self) -> bool:
        """Whether an input cost more than its clean one; without a union, taken for granted."""
        row = self.worst
        if row is None or row["kind"] != UNION:
            return row is not None
        return not missing(row["found_by"]) and bool(row["found_by"])

    @property
    def timed(self) -> Row | None:
        """The row whose latency stands in the headline: that of the attack."""
        return self.attack or self.shown

    @property
    def shown(self) -> Row | None:
        """The row whose MACs stand in the headline."""
        return self.worst or self.clean


def verdicts(scores: pd.DataFrame, meta: Meta) -> list[Verdict]:
    """One verdict per victim, in the order of the scores; unscored victims of ``meta`` last."""
    known = [*scores.get("victim", pd.Series(dtype=str)).map(str), *section(meta, "victims")]
    return [
        _verdict(name, scores[scores["victim"].map(str) == name] if len(scores) else scores, meta)
        for name in dict.fromkeys(known)
    ]


def worst_of(rows: list[Row]) -> Row | None:
    """The row that left the least savings; by MACs ratio where max MACs are unknown."""
    judged = [row for row in rows if not missing(row["macs"])]
    if rows and not judged and unknown_work(rows[0]):
        return rows[0]  # its answers and its latency are known
    with_max = [row for row in judged if not missing(row["savings_retained"])]
    if with_max:
        return min(with_max, key=lambda row: row["savings_retained"])
    ratios = [row for row in judged if not missing(row["equals_n_requests"])]
    return max(ratios, key=lambda row: row["equals_n_requests"], default=None)


def _attack(rows: list[Row]) -> Row | None:
    """The attack that got furthest inside a budget; of equal ones, one that seeks work."""
    inside = [row for row in rows if row["kind"] in ATTACKS and row.get("inside", True)]
    return worst_of(sorted(inside, key=lambda row: KINDS.index(row["kind"])))


def _verdict(name: str, scored: pd.DataFrame, meta: Meta) -> Verdict:
    rows = rows_of(scored)
    about = section(meta, "victims").get(name) or {}
    family = next((str(row["family"]) for row in rows if not missing(row.get("family"))), "")
    constant = any(row["constant"] is True or row["constant"] == 1 for row in rows)
    unions = [row for row in rows if row["kind"] == UNION]
    attack = _attack(rows if unions else [row for row in rows if row["kind"] == "compute"])
    worst = worst_of(unions) if attack and unions else attack
    savings = worst["savings_retained"] if worst else float("nan")
    reasons = {skip["reason"] for skip in skipped(meta) if skip["victim"] == name} - {""}
    note = ""
    if constant:
        savings = 1.0 if missing(savings) else savings
        note = "Constant: its MACs cannot depend on the input, so there is nothing to take back."
    elif rows and unknown_work(rows[0]):
        note = f"Could not be measured: {unmeasured_because(scored)}."
    elif worst is None:
        note = "No attack ran inside a budget"
        note += f": {'; '.join(sorted(reasons))}" if reasons else "."
    elif unions and saves_nothing(scored.iloc[0]):
        note = f"Could not be measured: {unmeasured_because(scored)}."
    elif missing(savings):
        note = _unsaid(worst)
    elif savings < -SLACK:
        note = "An error: attack success is above 1, so its max MACs are declared too low."
    return Verdict(
        victim=name,
        family=family or str(about.get("family", "")),
        constant=constant,
        worst=None if constant else worst,
        attack=attack,
        clean=next((row for row in rows if row["attack"] == "clean"), None),
        savings=float(savings),
        note=note,
        caveats=tuple(caveats(scored, meta)) if unions and not note else (),
        noun=noun_of(meta, name),
    )


def _unsaid(row: Row) -> str:
    """Why there is no savings retained, as a sentence."""
    why = no_savings(row).why
    if unknown_work(row):
        why += ": answers and latency alone are judged"
    elif unknown_max(row):
        why += ", so savings retained cannot be given"
    return f"{why[0].upper()}{why[1:]}."


def alarms(scores: pd.DataFrame, meta: Meta) -> list[str]:
    """What a reader must know before believing any number: errors in the scores themselves."""
    found = []
    for row in rows_of(scores):
        where = f"{row['victim']} under {row['attack']} ({at(row)})"
        if not missing(row["attack_success"]) and row["attack_success"] > 1 + SLACK:
            success = percent(row["attack_success"])
            found.append(f"{where}: attack success is {success}: its max MACs are declared too low")
        if row["constant"] and not missing(row["macs_ratio"]) and row["macs_ratio"] != 1:
            found.append(f"{where}: the MACs moved although the victim is declared constant")
    return found + [
        f"self-check failed: {check['victim']}, {check['check']}: {check['message']}"
        for check in checks(meta)
        if check["result"] == "failed"
    ]
