"""Limits on scores: what makes a run, or a test, fail.

A limit judges the worst compute attack inside the budget. Clean images, noise, near-uniform images
and accuracy attacks never count towards it; a score that could not be measured is an error, not a
pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from effattack.budgets import at_budget
from effattack.errors import MeasurementError, UsageError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

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

JUDGED_BY = {"latency_ratio": "latency_low"}
"""Noisy scores fail only where their whole interval is beyond the limit."""


class Limit(NamedTuple):
    """A bound on one score of the worst compute attack."""

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


def judge(scores: pd.DataFrame, kinds: dict[str, str], limits: Iterable[Limit]) -> list[Verdict]:
    """Every limit against every victim of a score table.

    Args:
        scores: the score table.
        kinds: attack name -> "compute", "accuracy" or "control".
        limits: to hold.

    Raises:
        MeasurementError: where a score is NaN or no compute attack ran; it also tells which other
            limits were crossed.
    """
    verdicts, unmeasured = [], []
    for limit in limits:
        for victim, rows in scores.groupby("victim", sort=False):
            try:
                verdicts.append(_judge(str(victim), rows, kinds, limit))
            except MeasurementError as error:
                unmeasured.append(str(error))
    if unmeasured:
        crossed = [verdict.message for verdict in verdicts if not verdict.passed]
        raise MeasurementError("; ".join(unmeasured + crossed))
    return verdicts


def _judge(victim: str, rows: pd.DataFrame, kinds: dict[str, str], limit: Limit) -> Verdict:
    against = rows[rows.attack.map(kinds).eq("compute")]
    if rows.constant.all() and against.empty:
        against = rows[rows.attack == "noise"]
    values = against[JUDGED_BY.get(limit.score, limit.score)]
    if against.empty:
        raise MeasurementError(
            f"could not measure {limit.score} of {victim} (no compute attack ran on it): name one "
            "that applies, such as QueryAttack"
        )
    if values.isna().any():
        raise MeasurementError(
            f"could not measure {limit.score} of {victim} (it is NaN): {_remedy(limit.score)}"
        )
    _expect_sharp(victim, against, limit)
    worst = against.loc[values.idxmin() if limit.fail_below else values.idxmax()]
    value = float(values[worst.name])
    passed = value >= limit.value if limit.fail_below else value <= limit.value
    return Verdict(victim, limit, passed, _in_words(worst, limit, value, passed))


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


def _remedy(score: str) -> str:
    if score.startswith("latency"):
        return "time the victim on a calm machine, without xdist"
    if score.startswith("energy"):
        return "effattack doctor says which counter is missing; run asks for it with --energy"
    return "give the victim max_macs, or limit macs_ratio, which needs none"


def _in_words(row: pd.Series, limit: Limit, value: float, passed: bool) -> str:
    side = _side(limit, passed)
    bound = "the lower bound of " if limit.score in JUDGED_BY else ""
    ceiling = f" of at most {row.max_macs:,.0f}" if row.max_macs == row.max_macs else ""
    return (
        f"{row.victim}: {bound}{limit.score.replace('_', ' ')} is {value:.3f}, {side} the limit "
        f"{limit.value:g}: {row.attack} at {at_budget(row.threat, row.eps)} moved the MACs "
        f"per image {row.clean_macs:,.0f} → {row.macs:,.0f}{ceiling}"
    )
