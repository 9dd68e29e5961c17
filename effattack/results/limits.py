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
from effattack.results.currency import unit, work_of
from effattack.results.score import Score
from effattack.results.table import SCORES, judged, limited
from effattack.results.unmeasured import GIVE_WORK, UNKNOWN_WORK, unknown_work

if TYPE_CHECKING:
    import pandas as pd

ATTACKS = ("compute", "accuracy")
"""Kinds of row that somebody sought on purpose; the others are controls."""
MOST_KNIFE_EDGES = 0.05
"""Share of rows whose two paths differ by rounding alone, above which no score is judged."""


REPLAYED = "replayed, not attacked"
"""What a run says that judged stored inputs: the one that may be green and attacked nothing."""


class Limit(NamedTuple):
    """A bound on one score of the union, or of the clock or the meter."""

    score: str
    value: float
    fail_below: bool
    """True: fails where the score is below; False: where it is above."""

    @property
    def on(self) -> Score:
        """The score that is judged; its bound, where the limit names that."""
        return limited()[self.score]

    @property
    def column(self) -> str:
        """What is held against the limit."""
        return self.on.judged_by or self.on.name


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
    name, equals, number = text.partition("=")
    option, other = ("below", "above") if fail_below else ("above", "below")
    score, right = judged(name), "more" if fail_below else "less"
    if score is None:
        sides = {known: one in SCORES for known, one in limited().items() if one.better == right}
        ours, others = ([k for k, our in sides.items() if our is side] for side in (True, False))
        raise unknown_name(f"score for fail-{option}", name, ours, others)
    if score.better is None:
        raise UsageError(
            f"{score.name} is a fact that is neither good nor bad: limit another score"
        )
    if score.better != right:
        raise UsageError(f"{name} is worse when it is {other} a limit: use fail-{other} {text}")
    try:
        value = float(number)
    except ValueError:
        value = nan
    if not equals or isnan(value):
        raise UsageError(f"fail-{option} {text!r}: write SCORE=NUMBER, such as {name}=0.6")
    low, high = score.range
    if not low <= value <= high:
        bounds = f"from {low:g}" if high == inf else f"up to {high:g}"
        bounds = f"in [{low:g}, {high:g}]" if inf not in (-low, high) else bounds
        raise UsageError(f"fail-{option} {text!r} is out of range: {name} takes a number {bounds}")
    return Limit(name if name == score.judged_by else score.name, value, fail_below)


def expect_untimed(limits: Iterable[Limit]) -> None:
    """Refuse limits on what a replay does not measure.

    Raises:
        UsageError: naming them.
    """
    if timed := [limit.score for limit in limits if limit.on.timed]:
        raise UsageError(
            f"a replay times nothing, and {', '.join(timed)} cannot be judged: keep that limit "
            "for the full run"
        )


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
            which other limits were crossed. Where its work is unknown, only limits on answers and
            latency can be held.
    """
    verdicts, unmeasured = [], []
    skipped = list(skipped)
    for victim, rows in scores.groupby("victim", sort=False):
        why = [skip["reason"] for skip in skipped if skip["victim"] == victim]
        judges_more = bool(limits) and unknown_work(rows.iloc[0])
        reason = unattacked(rows, why) if judges_more else unmeasured_because(rows, why)
        if reason:
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
    if unknown_work(first):
        return f"{UNKNOWN_WORK}, so no savings can be stated: {GIVE_WORK}"
    if saves_nothing(first):
        if first.get("clean_cap_hit_rate") == 1:
            return (
                f"the cap ended each of the {first.samples} clean texts (100 % cap hits), so "
                "nothing was saved that could be retained: raise the cap, or look whether the "
                "model writes the end token at all"
            )
        return (
            "nothing was saved on the clean inputs, so nothing can be retained: each of the "
            f"{first.samples} cost the declared max of {work_of(first).most:,.0f} {unit(first)}; "
            "look at the thresholds and the normalisation, or set constant=True if its MACs cannot "
            "depend on the input"
        )
    return unattacked(rows, skipped)


def unattacked(rows: pd.DataFrame, skipped: Sequence[str] = ()) -> str:
    """Why nobody attacked a victim inside a budget, and the remedy; empty if somebody did.

    Args:
        rows: of one victim.
        skipped: why attacks did not apply to it.
    """
    if not (rows.inside & rows.kind.isin(ATTACKS)).any():
        outside = rows[rows.kind.isin(ATTACKS)].attack.unique()
        told = [f"{attack} keeps to no asked budget" for attack in outside] + [*skipped]
        why = f" ({'; '.join(dict.fromkeys(told))})" if told else ""
        return f"no attack ran on it inside a budget{why}: name one that applies, as QueryAttack"
    return ""


def saves_nothing(row: pd.Series) -> bool:
    """Whether every clean input of a victim that is not constant costs its max already."""
    work = work_of(row)
    return bool(not row.constant and work.clean >= work.most)


def _judge(victim: str, rows: pd.DataFrame, limit: Limit) -> Verdict:
    score, against = limit.on, _judged(rows, limit)
    if against.empty:
        raise MeasurementError(
            f"could not measure {limit.score} of {victim} (no compute attack ran on it inside a "
            "budget): name one that applies, such as QueryAttack"
        )
    values = against[limit.column].where(against[score.name].notna())
    if values.isna().any():
        empty = against[values.isna()].iloc[0]
        why, remedy, _ = score.empty(empty)
        why = f"under {empty.attack}: {why}" if score.judged_by else why
        raise MeasurementError(f"could not measure {limit.score} of {victim} ({why}): {remedy}")
    _expect_sharp(victim, against, limit)
    worst = against.loc[values.idxmin() if limit.fail_below else values.idxmax()]
    value = float(values[worst.name])
    passed = value >= limit.value if limit.fail_below else value <= limit.value
    return Verdict(victim, limit, passed, _in_words(worst, limit, value, passed))


def _judged(rows: pd.DataFrame, limit: Limit) -> pd.DataFrame:
    """The rows of a victim of which the worst is held against a limit."""
    if not limit.on.timed:
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


def _in_words(row: pd.Series, limit: Limit, value: float, passed: bool) -> str:
    bound = "the lower bound of " if limit.score == limit.on.name != limit.column else ""
    interval = _interval(row, limit.on)
    if limit.on.answers:
        cause, beside = "the inputs that keep it under every row inside", interval
        cause = f"{cause} {at_budget(row.threat, row.eps)}"
    elif limit.on.proven:
        cause, beside = f"a bound for every attack, {at_budget(row.threat, row.eps)}", ""
    else:
        beside = "; ".join(filter(None, [row.found_by, interval]))
        work = work_of(row)
        ceiling = "" if isnan(work.most) else f" of at most {work.most:,.0f}"
        cause = (
            f"{found_most(row)} at {at_budget(row.threat, row.eps)} moved the {unit(row)} per "
            f"input {work.clean:,.0f} → {work.attacked:,.0f}{ceiling}"
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


def _interval(row: pd.Series, score: Score) -> str:
    """Of the judged point, where it has one."""
    low, high = (row[column] for column in score.columns[1:]) if score.bounds else (nan, nan)
    return "" if isnan(low) or isnan(high) else f"95 % interval {low:.3f} to {high:.3f}"
