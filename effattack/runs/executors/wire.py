"""What goes between a driver and a process that runs a cell: one line of text each way.

Names and numbers, no objects: whatever another process makes of a line, it makes itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from effattack.cells.by_name import Named
from effattack.cells.performing import Outcome, described, perform
from effattack.cells.plan import Cell, Timing
from effattack.cells.spec import CellSpec, Timed, Work
from effattack.cells.store import Store
from effattack.errors import CellError, StoreError, UsageError
from effattack.inputs.source import Source


def ticket(cell: Cell) -> str:
    """What a driver sends.

    Raises:
        UsageError: for a cell whose victim exists in this process only.
    """
    if not isinstance(cell.made_from, Named):
        raise UsageError(
            "only victims that are named can be run by other processes: make a Sweep with the "
            "victim's registered name or module:factory"
        )
    return json.dumps(asdict(cell))


def cell_of(line: str) -> Cell:
    """The cell of a ticket."""
    fields: dict[str, Any] = json.loads(line)
    fields["spec"] = _spec(fields["spec"])
    names = {key: _frozen(value) for key, value in fields["made_from"].items()}
    for key in ("data", "fit"):
        if names[key] is not None:
            names[key] = Source(**{k: _frozen(v) for k, v in names[key].items()})
    fields["made_from"] = Named(**names)
    if "attacked" not in fields:
        return Cell(**fields)
    fields["attacked"] = tuple(map(_spec, fields["attacked"]))
    return Timing(**fields)


def reply(line: str, store: Store) -> str:
    """Run the cell of a ticket; what is sent back about it."""
    try:
        outcome = perform(cell_of(line), store)
    except StoreError as error:
        return json.dumps({"state": "store", "error": str(error)})
    why = None if outcome.error is None else described(outcome.error)
    return json.dumps({"state": outcome.state, "error": why})


def understood(line: str, cell: Cell) -> Outcome:
    """The outcome of a cell, by the reply.

    Raises:
        StoreError: if its rows could not be stored.
    """
    said = json.loads(line)
    if said["state"] == "store":
        raise StoreError(said["error"])
    return Outcome(cell, said["state"], CellError(said["error"]) if said["error"] else None)


def _spec(fields: dict[str, Any]) -> CellSpec:
    timed = fields["timed"] and Timed(**fields["timed"])
    return CellSpec(**{**fields, "work": Work(fields["work"]), "timed": timed})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
