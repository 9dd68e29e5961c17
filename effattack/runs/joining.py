"""From finished cells to one frame and its provenance; needs no victim."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import torch

import effattack
from effattack.cells.attacking import SHOWN
from effattack.cells.held import About
from effattack.cells.plan import Cell, Plan
from effattack.cells.spec import CellSpec, Work
from effattack.cells.store import Shelf
from effattack.cells.timing import ratio
from effattack.errors import StoreError
from effattack.measure.counters import available_counters, why_empty
from effattack.measure.environment import environment
from effattack.measure.statistics import Interval
from effattack.results.frame import COLUMNS, SCHEMA, arranged
from effattack.results.selfchecks import unexplained_time, work_outside


def assembled(
    planned: Plan, shelf: Shelf, place: str, failed: dict[str, str]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The per-sample frame of a plan whose cells were run, and its provenance.

    Args:
        planned: the cells.
        shelf: where their rows are.
        place: the device of the timings.
        failed: key of each cell that failed -> reason.

    Raises:
        StoreError: if rows are damaged.
    """
    if planned.contract.spec.key in failed:
        return pd.DataFrame(columns=COLUMNS), {"skipped": _failures(planned, failed)}
    timings = {spec: cell.spec for cell in planned.timings(place) for spec in cell.attacked}
    same = None
    frames: list[pd.DataFrame] = []
    no_energy: set[str] = set()
    clean = None
    for cell in planned.attacks:
        if cell.spec.attack == "clean":
            clean = None if cell.spec.key in failed else read(shelf, cell.spec)
        if clean is None or cell.spec.key in failed:
            continue
        rows = read(shelf, cell.spec)
        if (spec := timings.get(cell.spec)) and shelf.has(spec):
            times = read(shelf, spec)
            no_energy.update(filter(None, times.get("no_energy", ())))
            if cell.spec.attack == "clean":
                same = ratio(times)
            if cell.spec.attack == "clean" or (same and not same.excludes(1)):
                rows = rows.merge(times, on="sample", how="left")
        frames.append(_joined(rows, clean, cell, planned.about))
    samples = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    samples = arranged(samples.drop(columns="no_energy", errors="ignore"))
    meta = _provenance(planned, shelf, same, no_energy, failed)
    meta["notes"] += [*work_outside(samples), *unexplained_time(samples)]
    return samples, meta


def read(shelf: Shelf, spec: CellSpec) -> pd.DataFrame:
    """The rows of a finished cell.

    Raises:
        StoreError: if they are damaged.
    """
    rows = shelf.read(spec)
    if rows is None:
        raise StoreError(
            f"the rows of {spec.victim} under {spec.attack} from input {spec.first} on are damaged "
            f"({spec.key}.parquet): the same command with --verify runs what is damaged again"
        )
    return rows


def _joined(rows: pd.DataFrame, clean: pd.DataFrame, cell: Cell, about: About) -> pd.DataFrame:
    """The rows of a cell beside what the clean inputs did."""
    shown = rows["sample"] < SHOWN
    beside = ["prediction", "macs", *about.counts, "elementwise", "modelled_joules"]
    beside += ["capped"] if "capped" in clean else []
    return rows.assign(
        victim=about.name,
        family=about.family,
        attack=cell.spec.attack,
        kind=cell.kind,
        threat=cell.threat,
        eps=cell.spec.eps,
        seed=cell.spec.seed,
        **{f"clean_{column}": clean[column].to_numpy() for column in beside},
        dense_macs=about.dense_macs,
        constant=about.constant,
        currency=about.currency,
        image=rows.image.where(shown, None),
    )


def _provenance(
    planned: Plan,
    shelf: Shelf,
    same: Interval | None,
    no_energy: set[str],
    failed: dict[str, str],
) -> dict[str, Any]:
    victim, contract = planned.about, planned.contract.spec
    device = device_here(contract.device)
    attacked = [cell.spec for cell in planned.attacks]
    notes = list(planned.notes)
    if victim.provenance:
        notes.append(
            f"{victim.name}: {', '.join(f'{k} {v}' for k, v in victim.provenance.items())}"
        )
    latency = {}
    if same is not None:
        latency = {"aa_low": same.low, "aa_high": same.high, "fired": same.excludes(1)}
        if same.excludes(1):
            notes.append(
                f"{victim.name}: no latency is given: clean against clean differed twice (×"
                f"{same.low:.3f} to ×{same.high:.3f}); this machine is too disturbed for a verdict"
            )
    notes += [f"{victim.name}: no energy is given: {reason}" for reason in sorted(no_energy)]
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "effattack": effattack.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "environment": {**environment(device), "batch_size": planned.timed.batch_size},
        "seeds": sorted({spec.seed for spec in attacked}),
        "attacks": sorted({spec.options for spec in attacked}),
        "victims": {
            victim.name: {
                "family": victim.family,
                "input_shape": list(victim.input_shape),
                "num_classes": victim.num_classes,
                "max_macs": victim.max_macs,
                "dense_macs": victim.dense_macs,
                "domain": victim.domain,
                "answer": victim.answer,
                "currency": victim.currency,
                "counts": victim.counts,
                **({"provenance": victim.provenance} if victim.provenance else {}),
                "digest": contract.victim_digest,
                "data": list(dict.fromkeys(spec.data_digest for spec in attacked)),
            }
        },
        "skipped": [*planned.skipped, *_failures(planned, failed)],
        "checks": _records(read(shelf, contract)),
        "latency": {victim.name: latency},
        "energy": "; ".join(sorted(no_energy)) or _energy_note(planned, device),
        "notes": notes,
    }


def _failures(planned: Plan, failed: dict[str, str]) -> list[dict[str, str]]:
    """Cells that failed, as the report tells what was skipped."""
    return [
        {
            "victim": cell.spec.victim,
            "attack": cell.spec.attack,
            "reason": f"{_place(cell.spec, planned.about)}: {failed[cell.spec.key]}",
        }
        for cell in (*planned.cells, *planned.timings(""))
        if cell.spec.key in failed
    ]


def _place(spec: CellSpec, about: About) -> str:
    if spec.work is Work.CONTRACT:
        return f"{spec.victim} was not attacked"
    where = f"{about.domain['nouns']} {spec.first} to {spec.last - 1}"
    return f"{spec.victim} under {spec.attack}, {where}, failed"


def _records(checks: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain dictionaries; a check that does not apply has neither passed nor failed."""
    return [
        {**record, "passed": None if record["passed"] is None else bool(record["passed"])}
        for record in checks.astype(object).where(checks.notna(), None).to_dict("records")
    ]


def device_here(device: str) -> str:
    """The device of the cells, or the processor where this process has no such device."""
    return device if device == "cpu" or torch.cuda.is_available() else "cpu"


def _energy_note(planned: Plan, device: str) -> str:
    counters, _ = available_counters(device)
    if not counters:
        return "no counter is reachable: " + "; ".join(why_empty(device))
    if not planned.timed.energy:
        return f"{counters[0].name} is reachable but was not asked for: it takes 30 s per attack"
    return f"{counters[0].name}, windows of 5 s, the first discarded"
