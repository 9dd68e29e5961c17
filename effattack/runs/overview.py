"""What a sweep is made of: done, running and to do, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from effattack.cells.plan import Plan
from effattack.cells.store import Store
from effattack.cells.store.journal import changes


def overview(plans: Sequence[Plan], store: Store) -> tuple[float, list[str]]:
    """The work that is left, in MACs, and what to tell of it."""
    cells = [cell for plan in plans for cell in plan.cells]
    todo = [cell for cell in cells if not store.has(cell.spec)]
    running = store.running().keys() & {cell.spec.key for cell in todo}
    timings = [cell for plan in plans for cell in plan.timings("")]
    contracts = [cell for cell in todo if cell.spec.work == "contract"]
    gradients = sum(cell.gradients for cell in todo)
    lines = [
        f"{len(cells):,} cells: {len(cells) - len(todo):,} done, {len(running):,} running in other "
        f"processes, {len(todo) - len(running):,} to do",
        f"to do: the contract of {len(contracts):,} victims, then about {gradients:,} gradient "
        f"evaluations of one image, {sum(cell.macs for cell in todo):.2g} MACs; afterwards "
        f"{len(timings):,} timings, one by one",
    ]
    lines += [f"will not be attacked: {plan.refused}" for plan in plans if plan.refused]
    again = changes(store.journal, [cell.spec for cell in todo])
    lines += [f"run again, {count:,} cells: {reason}" for reason, count in again.items()]
    return sum(cell.macs for cell in (*todo, *timings)), lines
