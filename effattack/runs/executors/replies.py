"""What a process that ran a cell says of it, and how its driver reads that."""

from __future__ import annotations

import json

from effattack.cells.performing import Outcome, described, perform
from effattack.cells.plan import Cell
from effattack.cells.store import Store
from effattack.errors import CellError, StoreError
from effattack.runs.executors.tickets import read


def reply(ticket: str, store: Store) -> str:
    """Run the cell of a ticket; one line about it."""
    try:
        outcome = perform(read(ticket), store)
    except StoreError as error:
        return json.dumps({"state": "store", "error": str(error)})
    why = None if outcome.error is None else described(outcome.error)
    return json.dumps({"state": outcome.state, "error": why})


def understood(line: str, cell: Cell) -> Outcome:
    """The outcome of a cell.

    Raises:
        StoreError: if its rows could not be stored.
    """
    said = json.loads(line)
    if said["state"] == "store":
        raise StoreError(said["error"])
    return Outcome(cell, said["state"], CellError(said["error"]) if said["error"] else None)
