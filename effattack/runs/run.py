"""One run: cells that are not finished yet, on any executor, and the evaluation of all that are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from effattack.cells.performing import Outcome, described
from effattack.cells.plan import Plan
from effattack.cells.store import Shelf
from effattack.errors import CellError, UsageError
from effattack.results.evaluation import Evaluation
from effattack.runs.executors import Executor
from effattack.runs.executors.in_process import InProcess
from effattack.runs.joining import assembled
from effattack.runs.scheduling import Progress, execute

TOLD = 3
"""Reasons why cells failed that an error names, at most."""


def go_on(outcome: Outcome) -> None:
    """What to do about a cell that failed: run the others."""


def give_up(outcome: Outcome) -> None:
    """What to do about a cell that failed: raise what it raised."""
    assert outcome.error is not None
    raise outcome.error


def run(
    plans: Sequence[Plan],
    shelf: Shelf,
    executor: Executor,
    on_failure: Callable[[Outcome], None] = go_on,
    progress: Progress | None = None,
) -> tuple[Evaluation, list[str]]:
    """Run what is not finished; the evaluation of all that is, and why cells failed.

    Args:
        plans: one per victim.
        shelf: where finished cells are; those already there are not run.
        executor: what runs the others.
        on_failure: called with each cell that failed; what it raises ends the run.
        progress: called after each cell.

    Raises:
        UsageError: for a remote victim on several processes.
        CellError: if nothing could be finished.
        StoreError: if the store cannot be written any more; finished cells are safe.
    """
    if remote := [plan.about.name for plan in plans if plan.about.remote]:
        executor = _here(executor, remote[0])
    failures: dict[str, str] = {}

    def note(outcome: Outcome) -> None:
        assert outcome.error is not None
        failures[outcome.cell.spec.key] = described(outcome.error)
        on_failure(outcome)

    place = execute(plans, shelf, executor, note, progress)
    parts = [Evaluation(*assembled(plan, shelf, place, failures)) for plan in plans]
    if not any(len(part.samples) for part in parts):
        raise failed(list(failures.values()))
    return Evaluation.concat(parts), list(failures.values())


def _here(executor: Executor, victim: str) -> InProcess:
    """This process, for a victim that is asked over one connection, under one budget."""
    here = executor.alone()
    if not isinstance(here, InProcess):
        raise UsageError(
            f"{victim} is asked over one connection, under one budget: leave workers and clusters "
            "out (--workers, --ray)"
        )
    return here


def failed(reasons: Sequence[str]) -> CellError:
    """What to say when cells failed."""
    told = [*dict.fromkeys(reasons)]
    more = f"; for {len(told) - TOLD} other reasons" * (len(told) > TOLD)
    return CellError(
        f"{len(reasons)} cells failed, because: {'; '.join(told[:TOLD])}{more}; all that did not "
        "wait for them is finished, and the same command tries these again"
    )
