"""Performing a cell: claimed, run and stored; whatever it raises is its outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch

from effattack.attacks.objectives import Step
from effattack.cells.attacking import Watch, run_attack
from effattack.cells.held import Held
from effattack.cells.marks import marked, marking
from effattack.cells.plan import Cell, Timing
from effattack.cells.spec import CellSpec, Work
from effattack.cells.store import Shelf
from effattack.cells.timing import run_timing
from effattack.errors import MeasurementError, StoreError
from effattack.registry.borders import staying
from effattack.results.selfchecks import check_victim
from effattack.victim.undisturbed import seed_global_state, undisturbed


def silent(spec: CellSpec, step: Step) -> None:
    """Of cells that nobody watches."""


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: done, failed, or busy in the hands of another process."""

    cell: Cell
    state: Literal["done", "failed", "busy"]
    error: Exception | None = None


def perform(cell: Cell, shelf: Shelf, watch: Watch = silent) -> Outcome:
    """Claim a cell, run it and store its rows; whatever it raises is its outcome.

    Raises:
        StoreError: if its rows cannot be stored; no other cell could be either.
    """
    with shelf.claim(cell.spec) as mine:
        if not mine:
            return Outcome(cell, "busy")
        if shelf.has(cell.spec):
            return Outcome(cell, "done")
        started = time.perf_counter()
        with marking() as spent:
            try:
                with threads(cell.spec.threads), staying(_named(cell.spec)):
                    rows = rows_of(cell, shelf, watch)
            except StoreError:
                raise
            except Exception as error:  # the other cells go on
                shelf.record(cell.spec, "failed", error=described(error))
                return Outcome(cell, "failed", error)
            with marked("storage"):
                shelf.write(cell.spec, rows)
        parts = {part: round(seconds, 3) for part, seconds in spent.items()}
        seconds = round(time.perf_counter() - started, 3)
        shelf.record(cell.spec, "done", seconds=seconds, parts=parts)
        return Outcome(cell, "done")


def _named(spec: CellSpec) -> str:
    return f"{spec.victim} under {spec.attack}" if spec.attack else spec.victim


def rows_of(cell: Cell, shelf: Shelf, watch: Watch) -> pd.DataFrame:
    """Run a cell of any kind."""
    held = cell.made_from.open(cell.spec)
    with undisturbed(held.victim):
        if isinstance(cell, Timing):
            return run_timing(held, cell, shelf)
        if cell.spec.work is Work.CONTRACT:
            return run_contract(held, cell.spec)
        return run_attack(held, cell.spec, watch)


def described(error: Exception) -> str:
    """An error in one line."""
    line = (str(error).splitlines() or [""])[0]
    return line if isinstance(error, MeasurementError) else f"{type(error).__name__}: {line}"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads; gradients of a ResNet differ between one and two."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_contract(held: Held, spec: CellSpec) -> pd.DataFrame:
    """The contract, and the self-checks of a victim before any attack, on a few inputs.

    Raises:
        ContractError: if the victim breaks it.
    """
    inputs, _ = held.inputs(spec)
    seed_global_state(0)
    return pd.DataFrame([check._asdict() for check in check_victim(held.victim, inputs)])
