"""A cell as one line of text, to reach another process: names and numbers, no objects."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from effattack.cells.by_name import Named
from effattack.cells.plan import Cell, Timing
from effattack.cells.spec import CellSpec
from effattack.errors import UsageError
from effattack.inputs.source import Source


def written(cell: Cell) -> str:
    """The ticket of a cell.

    Raises:
        UsageError: for a cell whose victim exists in this process only.
    """
    if not isinstance(cell.maker, Named):
        raise UsageError(
            "only victims that are named can be run by other processes: make a Sweep with the "
            "victim's registered name or module:factory"
        )
    return json.dumps(asdict(cell))


def read(ticket: str) -> Cell:
    """The cell of a ticket."""
    fields: dict[str, Any] = json.loads(ticket)
    fields["spec"] = CellSpec(**fields["spec"])
    maker = {key: _frozen(value) for key, value in fields["maker"].items()}
    for key in ("data", "fit"):
        if maker[key] is not None:
            maker[key] = Source(**{k: _frozen(v) for k, v in maker[key].items()})
    fields["maker"] = Named(**maker)
    if "attacked" not in fields:
        return Cell(**fields)
    fields["attacked"] = tuple(CellSpec(**spec) for spec in fields["attacked"])
    return Timing(**fields)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
