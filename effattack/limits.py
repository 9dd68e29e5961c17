"""Limits on scores: what makes a run, or a test, fail.

A limit judges the worst compute attack inside the budget. Clean images, noise, near-uniform images
and accuracy attacks never count towards it; a score that could not be measured is an error, not a
pass.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    worst = against.loc[values.idxmin() if limit.fail_below else values.idxmax()]
    value = float(values[worst.name])
    passed = value >= limit.value if limit.fail_below else value <= limit.value
    return Verdict(victim, limit, passed, _in_words(worst, limit, value, passed))


def _remedy(score: str) -> str:
    if score.startswith("latency"):
        return "time the victim on a calm machine, without xdist"
    if score.startswith("energy"):
        return "effattack doctor says which counter is missing; run asks for it with --energy"
    return "give the victim max_macs, or limit macs_ratio, which needs none"


def _in_words(row: pd.Series, limit: Limit, value: float, passed: bool) -> str:
    side = (
        ("at least" if limit.fail_below else "at most")
        if passed
        else ("below" if limit.fail_below else "above")
    )
    bound = "the lower bound of " if limit.score in JUDGED_BY else ""
    ceiling = f" of at most {row.max_macs:,.0f}" if row.max_macs == row.max_macs else ""
    return (
        f"{row.victim}: {bound}{limit.score.replace('_', ' ')} is {value:.3f}, {side} the limit "
        f"{limit.value:g}: {row.attack} at {at_budget(row.threat, row.eps)} moved the MACs "
        f"per image {row.clean_macs:,.0f} → {row.macs:,.0f}{ceiling}"
    )
