"""Failing a test, in words: limits that were crossed, and what got worse since a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from effattack.errors import MeasurementError
from effattack.pytest_plugin.held import was_judged
from effattack.pytest_plugin.session import Session, in_words
from effattack.results.limits import Limit

if TYPE_CHECKING:
    import pandas as pd

    from effattack.results.changes import Change, Comparison
    from effattack.results.evaluation import Evaluation

NOT_REPLAYED = "a replay times nothing: leave latency and energy to the full run"
NO_TIMING = "xdist workers disturb each other: use -n 0 to judge latency and energy"


def hold_limits(session: Session, evaluation: Evaluation, limits: Sequence[Limit]) -> None:
    """Fail the test where a limit is crossed, or nothing was measured that could be judged.

    Latency and energy cannot be judged in an xdist worker, or of stored inputs: a limit on them
    fails there too.
    """
    __tracebackhide__ = True
    from effattack.results.limits import judge

    timeless = bool(session.worker or session.settings.replay)
    judged = [limit for limit in limits if not (timeless and limit.on.timed)]
    untimed = [limit.score for limit in limits if limit not in judged]
    why = NOT_REPLAYED if session.settings.replay else NO_TIMING
    session.untimed |= bool(untimed and why == NO_TIMING)
    scores = evaluation.scores()
    asked = untimed or [limit.score for limit in limits] or ["savings"]
    unknown = f"could not measure {', '.join(asked)}"
    with in_words():
        try:
            verdicts = judge(scores, judged, evaluation.meta.get("skipped", []))
        except MeasurementError:
            _tell_all(session, scores, unknown)
            raise
    if session.item is not None:
        was_judged(session.item, session.settings.limits, judged)
    if untimed:
        _tell_all(session, scores, unknown)
    bad = [verdict for verdict in verdicts if not verdict.passed]
    for verdict in bad or (() if untimed else verdicts):
        session.tell(verdict.victim, "verdict", verdict.short)
    told = [verdict.message for verdict in bad]
    told += [f"could not measure {score}: {why}" for score in untimed]
    if told:
        pytest.fail("\n".join(told), pytrace=False)


def _tell_all(session: Session, scores: pd.DataFrame, verdict: str) -> None:
    for victim in scores.victim.unique():
        session.tell(victim, "verdict", verdict)


def compared(session: Session, evaluation: Evaluation, path: Path) -> Comparison:
    """The evaluation against a stored baseline; what cannot be compared is told with the test."""
    from effattack.results.baselines import Baseline
    from effattack.results.changes import compare

    with in_words():
        comparison = compare(evaluation, Baseline.load(path), path.stem)
    for victim in evaluation.scores().victim.unique():
        session.tell(victim, "note", "\n".join(comparison.notes))
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
