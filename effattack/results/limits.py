"""Limits on scores: what makes a run, or a test, fail.

A limit judges the union: per image, the worst of every row inside the budget, whoever found it
(:mod:`.union`). Of several budgets, the worst. Only what the clock and the meter read has
no union: there a limit judges the worst compute attack inside the budget. Rows outside, such as
near-uniform images, never count. What could not be measured is an error, not a pass, with limits
or without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isnan, nan
from typing import TYPE_CHECKING, NamedTuple

from effattack.budgets import at_budget
from effattack.errors import MeasurementError, UsageError, unknown_name
from effattack.results.unmeasured import NOTHING_SAVED, no_latency, no_savings

if TYPE_CHECKING:
    import pandas as pd

ATTACKS = ("compute", "accuracy")
"""Kinds of row that somebody sought on purpose; the others are controls."""
LESS_IS_WORSE = {"savings_retained", "accuracy", "agreement"}
MORE_IS_WORSE = {
    "macs_ratio",
    "attack_success",
    "attack_success_dense",
    "macs",
    "latency_ratio",
    "latency_low",
    "energy_ratio",
}
TIMED = {"latency_ratio", "latency_low", "energy_ratio"}
"""Scores of the clock and the meter, which neighbours on the machine disturb."""
RANGE = {
    "savings_retained": (-inf, 1),
    "attack_success": (-inf, 1),
    "accuracy": (0, 1),
    "agreement": (0, 1),
}
"""Where a limit makes sense; the others take any number from 0."""

MOST_KNIFE_EDGES = 0.05
"""Share of rows whose two paths differ by rounding alone, above which no score is judged."""

ANSWERS = {"accuracy", "agreement"}
"""Scores of what a victim says; the others are of what that costs."""
JUDGED_BY = {"latency_ratio": "latency_low"}
"""Noisy scores fail only where their whole interval is beyond the limit."""


class Limit(NamedTuple):
    """A bound on one score of the union, or of the clock or the meter."""

    score: str
    value: float
    fail_below: bool
    """True: fails where the score is below; False: where it is above."""


class Verdict(NamedTuple):
    """How one victim stands against one limit."""

    victim: str
    limit: Limit
    passed: bool
    message: str

    @property
    def short(self) -> str:
        """In a few words, for a table."""
        side = _side(self.limit, self.passed)
        kept = "passed" if self.passed else "failed"
        return f"{kept}: {self.limit.score} {side} {self.limit.value:g}"


def parse_limit(text: str, *, fail_below: bool) -> Limit:
    """``"savings_retained=0.6"`` -> Limit.

    Raises:
        UsageError: for an unknown score, a score of the other direction, or no number.
    """
    score, equals, number = text.partition("=")
    option, other = ("below", "above") if fail_below else ("above", "below")
    right, wrong = (LESS_IS_WORSE, MORE_IS_WORSE) if fail_below else (MORE_IS_WORSE, LESS_IS_WORSE)
    if score in wrong:
        raise UsageError(f"{score} is worse when it is {other} a limit: use fail-{other} {text}")
    if score not in right:
        raise unknown_name(f"score for fail-{option}", score, right)
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not equals or value != value:
        raise UsageError(f"fail-{option} {text!r}: write SCORE=NUMBER, such as {score}=0.6")
    low, high = RANGE.get(score, (0, inf))
    if not low <= value <= high:
        bounds = f"from {low:g}" if high == inf else f"up to {high:g}"
        bounds = f"in [{low:g}, {high:g}]" if inf not in (-low, high) else bounds
        raise UsageError(f"fail-{option} {text!r} is out of range: {score} takes a number {bounds}")
    return Limit(score, value, fail_below)


def judge(
    scores: pd.DataFrame, limits: Sequence[Limit], skipped: Iterable[Mapping[str, str]] = ()
) -> list[Verdict]:
    """Every limit against every victim of a score table; no limits ask only what was measured.

    Args:
        scores: the score table.
        limits: to hold.
        skipped: which attacks did not apply to which victim, and why.

    Raises:
        MeasurementError: where nothing was measured on a victim that is not constant (no attack
            inside a budget, nothing saved on its clean images), or a score is NaN; it also tells
            which other limits were crossed.
    """
    verdicts, unmeasured = [], []
    skipped = list(skipped)
    for victim, rows in scores.groupby("victim", sort=False):
        why = [skip["reason"] for skip in skipped if skip["victim"] == victim]
        if reason := unmeasured_because(rows, why):
            unmeasured.append(f"could not measure {victim}: {reason}")
            continue
        for limit in limits:
            try:
                verdicts.append(_judge(str(victim), rows, limit))
            except MeasurementError as error:
                unmeasured.append(str(error))
    if unmeasured:
        crossed = [verdict.message for verdict in verdicts if not verdict.passed]
        raise MeasurementError("; ".join(unmeasured + crossed))
    return verdicts


def results(
    scores: pd.DataFrame, limits: Sequence[Limit], skipped: Iterable[Mapping[str, str]] = ()
) -> list[dict[str, str]]:
    """How every victim stands against every limit, for a report: one record each, in words.

    Args:
        scores, limits, skipped: as :func:`judge` takes them.

    Returns:
        ``victim``, ``limit``, ``result`` ("passed", "failed" or "not measured") and ``message``.
    """
    skipped, found = list(skipped), []
    for victim, rows in scores.groupby("victim", sort=False):
        for limit in limits:
            bound = f"{limit.score} {_side(limit, True)} {limit.value:g}"
            try:
                (verdict,) = judge(rows, [limit], skipped)
                result, message = "passed" if verdict.passed else "failed", verdict.message
            except MeasurementError as error:
                result, message = "not measured", str(error)
            record = {"victim": str(victim), "limit": bound, "result": result, "message": message}
            found.append(record)
    return found


def unmeasured_because(rows: pd.DataFrame, skipped: Sequence[str] = ()) -> str:
    """Why the scores of a victim say nothing of its savings, and the remedy; empty if they do.

    Args:
        rows: of one victim, constant ones always say what there is to say.
        skipped: why attacks did not apply to it.
    """
    first = rows.iloc[0]
    if rows.constant.all():
        return ""
    if saves_nothing(first):
        return (
            "nothing was saved on the clean inputs, so nothing can be retained: each of the "
            f"{first.samples} cost the declared max of {first.max_macs:,.0f} MACs; look at the "
            "thresholds and the normalisation, or set constant=True if its MACs cannot depend on "
            "the input"
        )
    if not (rows.inside & rows.kind.isin(ATTACKS)).any():
        outside = rows[rows.kind.isin(ATTACKS)].attack.unique()
        told = [f"{attack} keeps to no asked budget" for attack in outside] + [*skipped]
        why = f" ({'; '.join(dict.fromkeys(told))})" if told else ""
        return f"no attack ran on it inside a budget{why}: name one that applies, as QueryAttack"
    return ""


def saves_nothing(row: pd.Series) -> bool:
    """Whether every clean input of a victim that is not constant costs its max already."""
    return bool(not row.constant and row.clean_macs >= row.max_macs)


def _judge(victim: str, rows: pd.DataFrame, limit: Limit) -> Verdict:
    against = _judged(rows, limit)
    values = against[JUDGED_BY.get(limit.score, limit.score)]
    if against.empty:
        raise MeasurementError(
            f"could not measure {limit.score} of {victim} (no compute attack ran on it inside a "
            "budget): name one that applies, such as QueryAttack"
        )
    if limit.score.startswith("latency"):
        values = values.where(against.latency_ratio.notna())
    if values.isna().any():
        why, remedy = _unmeasured(against[values.isna()].iloc[0], limit.score)
        raise MeasurementError(f"could not measure {limit.score} of {victim} ({why}): {remedy}")
    _expect_sharp(victim, against, limit)
    worst = against.loc[values.idxmin() if limit.fail_below else values.idxmax()]
    value = float(values[worst.name])
    passed = value >= limit.value if limit.fail_below else value <= limit.value
    return Verdict(victim, limit, passed, _in_words(worst, limit, value, passed))


def _judged(rows: pd.DataFrame, limit: Limit) -> pd.DataFrame:
    """The rows of a victim of which the worst is held against a limit."""
    if limit.score not in TIMED:
        return rows[rows.kind == "union"]
    compute = rows[(rows.kind == "compute") & rows.inside]
    return rows[rows.attack == "noise"] if rows.constant.all() and compute.empty else compute


def _expect_sharp(victim: str, rows: pd.DataFrame, limit: Limit) -> None:
    """Refuse to judge scores of decisions that rounding took.

    Raises:
        MeasurementError: with the share of such rows.
    """
    share = rows.get("knife_edge")
    if share is not None and (worst := float(share.max())) > MOST_KNIFE_EDGES:
        raise MeasurementError(
            f"could not measure {limit.score} of {victim} (rounding took the decisions of "
            f"{worst:.0%} of its rows, at most {MOST_KNIFE_EDGES:.0%} may be): score it in a finer "
            "precision, such as victim.float()"
        )


def _side(limit: Limit, passed: bool) -> str:
    if passed:
        return "at least" if limit.fail_below else "at most"
    return "below" if limit.fail_below else "above"


def _unmeasured(row: pd.Series, score: str) -> tuple[str, str]:
    """Why a score of a row is NaN, and the remedy."""
    if score.startswith("latency"):
        remedy = "time the victim longer (--timing 5), on a calm machine, without xdist"
        return f"under {row.attack}: {no_latency(row)}", remedy
    if score.startswith("energy"):
        remedy = "effattack doctor says which counter is missing; run asks for it with --energy"
        return "it is NaN", remedy
    if (why := no_savings(row)) == NOTHING_SAVED:
        return why, "check its thresholds, and the normalisation of its inputs"
    return why, "give the victim max_macs, or limit macs_ratio, which needs none"


def _in_words(row: pd.Series, limit: Limit, value: float, passed: bool) -> str:
    bound = "the lower bound of " if limit.score in JUDGED_BY else ""
    interval = _interval(row, limit.score)
    if limit.score in ANSWERS:
        cause, beside = "the images that keep it under every row inside", interval
        cause = f"{cause} {at_budget(row.threat, row.eps)}"
    else:
        beside = "; ".join(filter(None, [row.found_by, interval]))
        ceiling = f" of at most {row.max_macs:,.0f}" if row.max_macs == row.max_macs else ""
        cause = (
            f"{found_most(row)} at {at_budget(row.threat, row.eps)} moved the MACs per image "
            f"{row.clean_macs:,.0f} → {row.macs:,.0f}{ceiling}"
        )
    return (
        f"{row.victim}: {bound}{limit.score.replace('_', ' ')} is {value:.3f}, "
        f"{_side(limit, passed)} the limit {limit.value:g}: {cause}{f' ({beside})' * bool(beside)}"
    )


def found_most(row: pd.Series) -> str:
    """Who brought a judged row about: an attack, "Slowdown and others", or "nothing"."""
    if row.kind != "union":
        return str(row.attack)
    first, _, rest = row.found_by.partition(" found ")
    return first + " and others" * ("," in rest) or "nothing"


def _interval(row: pd.Series, score: str) -> str:
    """Of the judged point, where it has one."""
    low, high = row.get(f"{score}_low", nan), row.get(f"{score}_high", nan)
    return "" if isnan(low) or isnan(high) else f"95 % interval {low:.3f} to {high:.3f}"
