"""Failing a test, in words: limits that were crossed, and what got worse since a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from effattack._pytest_session import Session, in_words
from effattack.limits import TIMED, Limit

if TYPE_CHECKING:
    from effattack.changes import Change, Comparison
    from effattack.evaluation import Evaluation

NO_TIMING = "xdist workers disturb each other: use -n 0 to judge latency and energy"


def hold_limits(session: Session, evaluation: Evaluation, limits: Sequence[Limit]) -> None:
    """Fail the test where a limit is crossed; skip what cannot be judged in an xdist worker."""
    __tracebackhide__ = True
    from effattack.limits import judge

    judged = [limit for limit in limits if not (session.worker and limit.score in TIMED)]
    session.untimed |= judged != [*limits]
    scores = evaluation.scores()
    if judged:
        asked = ", ".join(limit.score for limit in judged)
        for victim in scores.victim.unique():
            session.tell(victim, "verdict", f"could not measure {asked}")
        with in_words():
            verdicts = judge(scores, evaluation.kinds, judged)
        for verdict in sorted(verdicts, key=lambda v: not v.passed):
            session.tell(verdict.victim, "verdict", verdict.short)
        if crossed := [verdict.message for verdict in verdicts if not verdict.passed]:
            pytest.fail("\n".join(crossed), pytrace=False)
    if len(judged) < len(limits):
        pytest.skip(NO_TIMING)


def compared(session: Session, evaluation: Evaluation, path: Path) -> Comparison:
    """The evaluation against a stored baseline; what cannot be compared is told with the test."""
    from effattack.baselines import Baseline
    from effattack.changes import compare

    with in_words():
        comparison = compare(evaluation, Baseline.load(path), path.stem)
    for victim in evaluation.scores().victim.unique():
        session.tell(victim, "note", "; ".join(comparison.notes))
    return comparison


def hold_baseline(
    session: Session, comparison: Comparison, changes: Sequence[Change], name: str
) -> None:
    """Fail the test for these changes of a comparison."""
    __tracebackhide__ = True
    for victim in {change.victim for change in comparison.judged}:
        own = [change.score for change in changes if change.victim == victim]
        kept = f"failed: {', '.join(dict.fromkeys(own))} against {name}"
        session.tell(victim, "verdict", kept if own else f"passed: as good as {name}")
    if changes:
        told = [f"changed beyond the noise since {name}:", *map(str, changes), *comparison.notes]
        pytest.fail("\n".join(told), pytrace=False)
