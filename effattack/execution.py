"""Running cells: attack, score image by image, time, join.

Every row is computed on the deployed path and audited: the prediction comes from ``forward``, the
MACs are those counted while it ran, and ``trace`` must have declared the same.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import effattack
from effattack.attacks.base import undisturbed
from effattack.budgets import LEVELS
from effattack.cells import CellSpec, Store
from effattack.decisions import opened, to_text
from effattack.errors import MeasurementError
from effattack.measure.clocks import WallClock
from effattack.measure.counters import available_counters, why_empty
from effattack.measure.energy import energy_ratio
from effattack.measure.environment import environment
from effattack.measure.latency import time_pairs
from effattack.measure.statistics import Interval, median_ratio
from effattack.planning import Cell, Plan
from effattack.selfchecks import Check, check_victim
from effattack.victim import audit

SCHEMA = 1
"""Of the stored frames; raised when their columns change meaning."""
SHOWN = 8
"""Images per victim and attack that the frame keeps for the report."""

Progress = Callable[[str, float], None]
"""Called with a description and the work just finished, in MACs."""

COLUMNS = [
    *("victim", "family", "attack", "kind", "eps", "seed", "sample", "label", "prediction"),
    *("clean_prediction", "macs", "clean_macs", "dense_macs", "max_macs", "constant"),
    *("knife_edge", "linf", "l2", "seconds", "clean_seconds", "clock", "joules", "clean_joules"),
    *("opened", "decisions", "image"),
]
"""Columns of the per-sample frame; README of the fields in ``docs/frames.md``."""


def execute(
    planned: Plan, store: Store | None, progress: Progress | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Run the cells of a plan that are not stored yet.

    Returns:
        The per-sample frame and its provenance.
    """
    victim = planned.victim
    frames: list[pd.DataFrame] = []
    with undisturbed(victim):
        checks = check_victim(victim, planned.cells[0].images[:SHOWN])
        timing, same = planned.timed > 0, None
        for cell in planned.cells:
            rows = _stored(store, cell.spec, partial(run_cell, cell))
            if cell.attack.name == "clean":
                clean = rows
            if cell.spec.first == 0 and timing:
                times = _timed(store, cell, rows, planned)
                if cell.attack.name == "clean":
                    same = _ratio(times)
                    timing = not same.excludes(1)
                rows = rows.merge(times, on="sample", how="left")
            frames.append(_joined(rows, clean, cell))
            if progress is not None:
                progress(f"{victim.name}: {cell.attack.name}", cell.work)
    samples = pd.concat(frames, ignore_index=True).reindex(columns=COLUMNS)
    return samples, _provenance(planned, checks, same)


def _timed(store: Store | None, cell: Cell, rows: pd.DataFrame, planned: Plan) -> pd.DataFrame:
    """The timing of a finished cell.

    Clean against clean (A/A) gets a second try if it fires; fired twice, it is not stored, so that
    the next run on a calmer machine may time again.
    """
    spec = replace(cell.spec, work=planned.timing)
    timing = partial(run_timing, cell, rows, planned.timed, planned.energy)
    if cell.attack.name != "clean":
        return _stored(store, spec, timing)
    if store is not None and (stored := store.read(spec)) is not None:
        return stored
    times = timing()
    if _ratio(times).excludes(1):
        times = timing()
    if store is not None and not _ratio(times).excludes(1):
        store.write(spec, times)
    return times


def _ratio(times: pd.DataFrame) -> Interval:
    return median_ratio(times.seconds.to_numpy(), times.clean_seconds.to_numpy())


def run_cell(cell: Cell) -> pd.DataFrame:
    """Attack one slice and score it image by image.

    Raises:
        AuditError: if the declared MACs of an image are not the executed ones.
    """
    adversarial = cell.attack(cell.images, cell.labels)
    found = audit(cell.attack.victim, adversarial)
    if broken := (~torch.isfinite(found.logits).all(1)).nonzero().flatten().tolist():
        raise MeasurementError(
            f"{cell.spec.victim}: the logits of image {cell.spec.first + broken[0]} under "
            f"{cell.attack.name} are NaN or infinite: check the weights and the normalisation"
        )
    change = (adversarial - cell.images).flatten(1)
    levels = (adversarial * LEVELS).round().to(torch.uint8).cpu().numpy()
    return pd.DataFrame(
        {
            "sample": np.arange(cell.spec.first, cell.spec.last),
            "label": cell.labels.cpu(),
            "prediction": found.logits.argmax(1).cpu(),
            "macs": found.macs,
            "knife_edge": found.knife_edge,
            "linf": change.abs().amax(1).cpu(),
            "l2": change.norm(dim=1).cpu(),
            "opened": [opened(image) for image in found.decisions],
            "decisions": [to_text(image) for image in found.decisions],
            "image": [level.tobytes() for level in levels],
        }
    )


def run_timing(cell: Cell, rows: pd.DataFrame, count: int, energy: bool) -> pd.DataFrame:
    """Time, and meter if asked, the first ``count`` attacked images beside the clean ones."""
    victim, clean = cell.attack.victim, cell.images[:count]
    attacked = _images(rows, clean)
    times = time_pairs(victim, clean, attacked, clocks=[WallClock(victim.device)])
    joules, clean_joules = np.nan, np.nan
    if energy and (counters := available_counters(victim.device)[0]):
        measured = energy_ratio(victim, clean, attacked, counters[0])
        joules, clean_joules = measured.joules_attacked, measured.joules_clean
    return pd.DataFrame(
        {
            "sample": rows["sample"].to_numpy()[: len(times)],
            "seconds": times.seconds_attacked,
            "clean_seconds": times.seconds_clean,
            "clock": times.clock,
            "joules": joules,
            "clean_joules": clean_joules,
        }
    )


def _images(rows: pd.DataFrame, like: Tensor) -> Tensor:
    """The stored 8-bit images of the first rows, as floats."""
    levels = [np.frombuffer(image, dtype=np.uint8) for image in rows.image[: len(like)]]
    return (torch.from_numpy(np.stack(levels)).view(like.shape) / LEVELS).to(like)


def _stored(store: Store | None, spec: CellSpec, run: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    if store is None:
        return run()
    if (rows := store.read(spec)) is None:
        rows = run()
        store.write(spec, rows)
    return rows


def _joined(rows: pd.DataFrame, clean: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """The rows of a cell beside what the clean images did."""
    victim, attack = cell.attack.victim, cell.attack
    shown = rows["sample"] < SHOWN
    return rows.assign(
        victim=victim.name,
        family=victim.family,
        attack=attack.name,
        kind=attack.kind,
        eps=attack.eps,
        seed=attack.seed,
        clean_prediction=clean.prediction.to_numpy(),
        clean_macs=clean.macs.to_numpy(),
        dense_macs=victim.dense_macs,
        max_macs=victim.max_macs,
        constant=victim.constant,
        decisions=rows.decisions.where(shown, None),
        image=rows.image.where(shown, None),
    )


def _provenance(planned: Plan, checks: list[Check], same: Interval | None) -> dict[str, Any]:
    victim = planned.victim
    notes = list(planned.notes)
    latency = {}
    if same is not None:
        latency = {"aa_low": same.low, "aa_high": same.high, "fired": same.excludes(1)}
        if same.excludes(1):
            notes.append(
                f"{victim.name}: no latency is given: clean against clean differed twice (×"
                f"{same.low:.3f} to ×{same.high:.3f}); this machine is too disturbed for a verdict"
            )
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "effattack": effattack.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "environment": environment(victim.device),
        "seeds": sorted({cell.attack.seed for cell in planned.cells}),
        "attacks": sorted({repr(cell.attack) for cell in planned.cells}),
        "victims": {
            victim.name: {
                "family": victim.family,
                "input_shape": list(victim.input_shape),
                "num_classes": victim.num_classes,
                "max_macs": victim.max_macs,
                "dense_macs": victim.dense_macs,
            }
        },
        "skipped": list(planned.skipped),
        "checks": [check._asdict() for check in checks],
        "latency": {victim.name: latency},
        "energy": _energy_note(planned),
        "notes": notes,
    }


def _energy_note(planned: Plan) -> str:
    counters, _ = available_counters(planned.victim.device)
    if not counters:
        return "no counter is reachable: " + "; ".join(why_empty(planned.victim.device))
    if not planned.energy:
        return f"{counters[0].name} is reachable but was not asked for: it takes 25 s per attack"
    return f"{counters[0].name}, windows of 5 s, the first discarded"
