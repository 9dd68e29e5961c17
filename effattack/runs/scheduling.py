"""What is to do, and doing it: the contract, attacks side by side, then timings alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell, Plan
from effattack.cells.spec import CellSpec, Work
from effattack.cells.store import Shelf, Store
from effattack.cells.store.journal import changes
from effattack.cells.timing import ratio
from effattack.runs.executors import Executor

POLL = 0.5
"""Seconds between two looks at cells that another process works on."""

Progress = Callable[[str, float], None]
"""Called with a description and the work just finished, in MACs."""


def execute(
    plans: Sequence[Plan],
    shelf: Shelf,
    executor: Executor,
    failed: Callable[[Outcome], None],
    progress: Progress | None = None,
) -> str:
    """Run all cells that are not finished; returns the device of the timings.

    A victim that breaks the contract is not attacked; the others are.

    Args:
        plans: one per victim.
        shelf: where finished cells are; those already there are not run.
        executor: what runs them.
        failed: called with each cell that failed, and why; what it raises ends the run.
        progress: called after each cell.

    Raises:
        StoreError: if the store cannot be written any more; finished cells are safe.
    """
    timed = any(plan.timed_inputs for plan in plans)
    with executor:
        place = executor.place(plans[0].cells[0].spec.device) if timed else ""
        _run([plan.contract for plan in plans], shelf, executor, failed, progress)
        sound = [plan for plan in plans if shelf.has(plan.contract.spec)]
        _run([cell for plan in sound for cell in plan.attacks], shelf, executor, failed, progress)
        if timed:
            with executor.alone() as alone, _owned(shelf, place):
                for plan in filter(lambda plan: plan.timed_inputs, sound):
                    _time(plan, shelf, alone, place, failed, progress)
    return place


def _time(
    plan: Plan,
    shelf: Shelf,
    alone: Executor,
    place: str,
    failed: Callable[[Outcome], None],
    progress: Progress | None,
) -> None:
    """The timings of a victim, one after the other; none, where clean against clean fires.

    One that fired is tried again by the next run, on a calmer machine.
    """
    same, *others = plan.timings(place)
    if not all(map(shelf.has, same.attacked)):
        return
    if _fires(shelf, same):
        shelf.remove(same.spec)
    _run([same], shelf, alone, failed, progress)
    if shelf.has(same.spec) and not _fires(shelf, same):
        cells = [cell for cell in others if all(map(shelf.has, cell.attacked))]
        _run(cells, shelf, alone, failed, progress)


@contextmanager
def _owned(shelf: Shelf, place: str) -> Iterator[None]:
    """Keep other processes from timing on the same device meanwhile."""
    while True:
        with shelf.claim(CellSpec(Work.TIMING, place=place)) as mine:
            if mine:
                yield
                return
        time.sleep(POLL)


def _fires(shelf: Shelf, same: Cell) -> bool:
    times = shelf.read(same.spec) if shelf.has(same.spec) else None
    return times is not None and ratio(times).excludes(1)


def _run(
    cells: Iterable[Cell],
    shelf: Shelf,
    executor: Executor,
    failed: Callable[[Outcome], None],
    progress: Progress | None,
) -> None:
    for outcome in outcomes(cells, shelf, executor):
        if outcome.state == "failed":
            failed(outcome)
        if progress is not None and outcome.cell.macs:
            spec = outcome.cell.spec
            progress(f"{spec.victim}: {spec.attack or spec.work}", outcome.cell.macs)


def outcomes(cells: Iterable[Cell], shelf: Shelf, executor: Executor) -> Iterator[Outcome]:
    """Each unfinished cell once; one that another process works on is waited for."""
    waiting = [cell for cell in cells if not shelf.has(cell.spec)]
    while waiting:
        busy = []
        for outcome in executor.run(waiting, shelf):
            if outcome.state == "busy":
                busy.append(outcome.cell)
            else:
                yield outcome
        if busy:
            time.sleep(POLL)
        waiting = busy


def finished(plans: Sequence[Plan], shelf: Shelf, executor: Executor) -> list[CellSpec]:
    """What of the plans is there already, timings included."""
    timed = any(plan.timed_inputs for plan in plans)
    with executor if timed else nullcontext():
        place = executor.place(plans[0].cells[0].spec.device) if timed else ""
    cells = [cell for plan in plans for cell in (*plan.cells, *plan.timings(place))]
    return [cell.spec for cell in cells if shelf.has(cell.spec)]


def discard_damaged(plans: Sequence[Plan], shelf: Shelf, executor: Executor) -> list[CellSpec]:
    """Forget the cells whose files are truncated or altered; reads all of them."""
    damaged = [spec for spec in finished(plans, shelf, executor) if shelf.read(spec) is None]
    for spec in damaged:
        shelf.remove(spec)
    return damaged


def overview(plans: Sequence[Plan], store: Store) -> tuple[float, list[str]]:
    """The work that is left, in MACs, and what to tell of it."""
    cells = [cell for plan in plans for cell in plan.cells]
    todo = [cell for cell in cells if not store.has(cell.spec)]
    running = store.running().keys() & {cell.spec.key for cell in todo}
    timings = [cell for plan in plans for cell in plan.timings("")]
    contracts = [cell for cell in todo if cell.spec.work is Work.CONTRACT]
    gradients = sum(cell.gradients for cell in todo)
    lines = [
        f"{len(cells):,} cells: {len(cells) - len(todo):,} done, {len(running):,} running in other "
        f"processes, {len(todo) - len(running):,} to do",
        f"to do: the contract of {len(contracts):,} victims, then about {gradients:,} gradient "
        f"evaluations of one input, {sum(cell.macs for cell in todo):.2g} MACs; afterwards "
        f"{len(timings):,} timings, one by one",
    ]
    lines += [f"will not be attacked: {plan.refused}" for plan in plans if plan.refused]
    again = changes(store.journal, [cell.spec for cell in todo])
    lines += [f"run again, {count:,} cells: {reason}" for reason, count in again.items()]
    return sum(cell.macs for cell in (*todo, *timings)), lines
