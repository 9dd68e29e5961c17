"""Running cells: attack, score image by image, time.

Every row is computed on the deployed path and audited: the prediction comes from ``forward``, the
MACs are those counted while it ran, and ``trace`` must have declared the same.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.attacks.fitting import fitted
from effattack.attacks.objectives import Step
from effattack.borders import staying
from effattack.budgets import LEVELS
from effattack.cells.held import Held
from effattack.cells.plan import Cell, Timing
from effattack.cells.spec import CellSpec, Timed, Work
from effattack.cells.store import Shelf
from effattack.errors import CellError, MeasurementError, StoreError
from effattack.measure.counters import available_counters, why_empty
from effattack.measure.energy import energy_ratio
from effattack.measure.environment import device_name
from effattack.measure.latency import time_pairs
from effattack.measure.statistics import Interval, median_ratio
from effattack.results.decisions import opened, to_text
from effattack.results.selfchecks import check_victim
from effattack.victim import Victim, audit
from effattack.victim.checks.costs import expect_admitted
from effattack.victim.undisturbed import seed_global_state, undisturbed

SHOWN = 8
"""Images per victim and attack that the frame keeps for the report."""

Watch = Callable[[CellSpec, Step], None]
"""Told of every step of an attack, and whose it is."""


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
        try:
            with threads(cell.spec.threads), staying(_named(cell.spec)):
                rows = rows_of(cell, shelf, watch)
        except StoreError:
            raise
        except Exception as error:  # the other cells go on
            shelf.record(cell.spec, "failed", error=described(error))
            return Outcome(cell, "failed", error)
        shelf.write(cell.spec, rows)
        shelf.record(cell.spec, "done", seconds=round(time.perf_counter() - started, 3))
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
    """The contract, and the self-checks of a victim before any attack, on a few images.

    Raises:
        ContractError: if the victim breaks it.
    """
    images, _ = held.images(spec)
    seed_global_state(0)
    return pd.DataFrame([check._asdict() for check in check_victim(held.victim, images)])


def run_attack(held: Held, spec: CellSpec, watch: Watch) -> pd.DataFrame:
    """Attack one slice and score it image by image.

    Raises:
        ContractError: if the declared MACs of an image are not the executed ones, are none, leave
            out work that the counter cannot see, or are more than the victim admits.
    """
    images, labels = held.images(spec)
    watched = partial(watch, spec)
    adversarial = fitted(held.attacks[spec.attack_digest], watched)(images, labels, watched)
    found = audit(held.victim, adversarial)
    if broken := (~torch.isfinite(found.logits).all(1)).nonzero().flatten().tolist():
        raise MeasurementError(
            f"{spec.victim}: the logits of image {spec.first + broken[0]} under "
            f"{spec.attack} are NaN or infinite: check the weights and the normalisation"
        )
    for sample, spent in enumerate(found.macs.tolist(), spec.first):
        expect_admitted(held.victim, spent, f"image {sample} under {spec.attack}")
    change = (adversarial - images).flatten(1)
    changed = (change.abs() > 0.5 / LEVELS).view(len(images), images.shape[1], -1)
    levels = (adversarial * LEVELS).round().to(torch.uint8).cpu().numpy()
    samples = np.arange(spec.first, spec.last)
    return pd.DataFrame(
        {
            "sample": samples,
            "knowledge": held.attacks[spec.attack_digest].knowledge,
            "label": labels.cpu(),
            "prediction": found.logits.argmax(1).cpu(),
            "macs": found.macs,
            "elementwise": found.elementwise,
            "outside": [json.dumps(image) if image else None for image in found.outside],
            "modelled_joules": found.modelled_joules,
            "knife_edge": found.knife_edge,
            "linf": change.abs().amax(1).cpu(),
            "l2": change.norm(dim=1).cpu(),
            "l1": change.abs().sum(1).cpu(),
            "pixels": changed.any(1).sum(1).cpu(),
            "opened": [opened(image) for image in found.decisions],
            "decisions": [
                to_text(image) if sample < SHOWN else None
                for sample, image in zip(samples, found.decisions, strict=True)
            ],
            "image": [
                level.tobytes() if sample < spec.kept else None
                for sample, level in zip(samples, levels, strict=True)
            ],
        }
    )


def run_timing(held: Held, cell: Timing, shelf: Shelf) -> pd.DataFrame:
    """Time, and meter if asked, the first attacked images beside the clean ones.

    Clean against clean (A/A) gets a second try if it fires.
    """
    clean, _ = held.images(cell.spec)
    attacked = []
    for spec in cell.attacked:
        rows = shelf.read(spec)
        if rows is None:
            raise CellError(f"the rows of {spec.attack} are damaged: run with --verify")
        attacked.append(_images(rows, clean[spec.first :]))
    assert cell.spec.timed is not None
    arms = held.victim, clean, torch.cat(attacked), cell.spec.timed
    times = _timed(*arms)
    if cell.spec.attack == "clean" and ratio(times).excludes(1):
        times = _timed(*arms)
    return times


def ratio(times: pd.DataFrame) -> Interval:
    """Attacked over clean."""
    return median_ratio(times.seconds.to_numpy(), times.clean_seconds.to_numpy())


def _timed(victim: Victim, clean: Tensor, attacked: Tensor, how: Timed) -> pd.DataFrame:
    """One row per call, under the index of its first image."""
    times = time_pairs(victim, clean, attacked, batch_sizes=(how.batch_size,), seconds=how.seconds)
    by_clock = dict(iter(times.groupby("clock")))
    wall, events = by_clock["wall"], by_clock.get("cuda_event")
    size = int(wall.batch_size.iloc[0])  # halved where a batch did not fit in memory
    energy = _metered(victim, clean, attacked, size) if how.energy else {}
    return pd.DataFrame(
        {
            "sample": wall.image.to_numpy(),
            "batch_size": wall.batch_size.to_numpy(),
            "seconds": wall.seconds_attacked.to_numpy(),
            "clean_seconds": wall.seconds_clean.to_numpy(),
            "clock": "wall",
            "event_seconds": np.nan if events is None else events.seconds_attacked.to_numpy(),
            "clean_event_seconds": np.nan if events is None else events.seconds_clean.to_numpy(),
            "environment": wall.environment.to_numpy(),
            "node": platform.node(),
            "device": device_name(victim.device),
            **energy,
        }
    )


def _metered(victim: Victim, clean: Tensor, attacked: Tensor, size: int) -> dict[str, float | str]:
    """Joules per image by the first counter of the device, or why there are none."""
    counters, _ = available_counters(victim.device)
    if not counters:
        return {"no_energy": "; ".join(why_empty(victim.device))}
    measured = energy_ratio(victim, clean, attacked, counters[0], batch_size=size)
    return {
        "joules": measured.joules_attacked,
        "clean_joules": measured.joules_clean,
        "idle_watts": measured.idle_watts,
        "no_energy": measured.reason,
    }


def _images(rows: pd.DataFrame, like: Tensor) -> Tensor:
    """The stored 8-bit images of the rows, as floats; no more of them than ``like``."""
    like = like[: len(rows)]
    levels = [np.frombuffer(image, dtype=np.uint8) for image in rows.image[: len(like)]]
    return (torch.from_numpy(np.stack(levels)).view(like.shape) / LEVELS).to(like)
