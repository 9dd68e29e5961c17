"""The rows of a timing: latency, and energy if asked, of the inputs that attack cells stored."""

from __future__ import annotations

import platform

import numpy as np
import pandas as pd

from effattack.cells.held import Held
from effattack.cells.plan import Timing
from effattack.cells.spec import Timed
from effattack.cells.store import Shelf
from effattack.domains import Batch
from effattack.errors import CellError
from effattack.measure.counters import available_counters, why_empty
from effattack.measure.energy import energy_ratio
from effattack.measure.environment import device_name
from effattack.measure.latency import time_pairs
from effattack.measure.statistics import Interval, median_ratio
from effattack.victim import Victim


def run_timing(held: Held, cell: Timing, shelf: Shelf) -> pd.DataFrame:
    """Time, and meter if asked, the first attacked inputs beside the clean ones.

    Clean against clean (A/A) gets a second try if it fires.
    """
    domain = held.victim.domain
    clean, _ = held.inputs(cell.spec)
    attacked = []
    for spec in cell.attacked:
        rows = shelf.read(spec)
        if rows is None:
            raise CellError(f"the rows of {spec.attack} are damaged: run with --verify")
        like = clean[spec.first : spec.last]
        attacked.append(domain.unpack([*rows.image[: len(like)]], like))
    assert cell.spec.timed is not None
    arms = held.victim, clean, domain.join(attacked), cell.spec.timed
    times = _timed(*arms)
    if cell.spec.attack == "clean" and ratio(times).excludes(1):
        times = _timed(*arms)
    return times


def ratio(times: pd.DataFrame) -> Interval:
    """Attacked over clean."""
    return median_ratio(times.seconds.to_numpy(), times.clean_seconds.to_numpy())


def _timed(victim: Victim, clean: Batch, attacked: Batch, how: Timed) -> pd.DataFrame:
    """One row per call, under the index of its first input."""
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


def _metered(victim: Victim, clean: Batch, attacked: Batch, size: int) -> dict[str, float | str]:
    """Joules per input by the first counter of the device, or why there are none."""
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
