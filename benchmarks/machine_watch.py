"""Strength on `machine_watch`: sensor alone, camera alone, both; and who misses one of them.

    python benchmarks/machine_watch.py
    python benchmarks/machine_watch.py --table

Test machines, of every class as many. ``Slowdown`` takes 50 gradients, as many on both parts as on
one, beside noise of the same budget and the worst of as many random points as it sends machines
through the model, a gradient counting three; the joint budget is both at once. A modality that is
missing is no attack within a budget: what answers without it is run on the same machines. A row
that is there is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from kept_rows import commit, keep, kept, parser_of
from tables import markdown
from torch import Tensor

from effattack import evaluate
from effattack.domains import PartsBatch
from effattack.models_zoo.multimodal.machine_watch import machine_watch
from effattack.models_zoo.multimodal.machines import CAMERA, scored_machines, without
from effattack.victim import Victim

BUDGETS = ((".05sd", "2/255"), (".1sd", "4/255"), (".2sd", "8/255"))
"""Of the sensor and of the camera, from small to large."""
HOUSE = ("Slowdown", "Slowdown(keep_prediction=True)")
RANDOM = "BestOfRandom(draws=150)"
MACHINES = 120
ROWS = Path(__file__).parents[1] / "reports" / "strength" / "machine_watch.jsonl"


def threats() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each threat with the attacks in it; last, the ensemble at the middle budgets."""
    for budgets, attacks in ((BUDGETS, (*HOUSE, RANDOM)), (BUDGETS[1:2], ("AutoSlow",))):
        for on_sensor, on_camera in budgets:
            sensor, camera = f"vibration:linf:{on_sensor}", f"camera:linf:{on_camera}"
            yield from ((threat, attacks) for threat in (sensor, camera, f"{sensor}+{camera}"))


def told(samples: pd.DataFrame) -> dict[str, Any]:
    """Means over the machines of one attack, or of none."""
    moved, room = samples.macs - samples.clean_macs, samples.max_macs - samples.clean_macs
    paid = [json.loads(stages).get(CAMERA, 0) > 0 for stages in samples.stage_macs]
    return {
        "clean_work": samples.clean_macs.mean(),
        "work": samples.macs.mean(),
        "success": moved.sum() / room.sum(),
        "paid": float(pd.Series(paid).mean()),
        "accuracy": float(samples.right.mean()),
        "agreement": float(samples.same.mean()),
    }


def run(rows: Path, count: int) -> None:
    """Measure what ``rows`` lack."""
    done = {(row["threat"], row["attack"]) for row in kept(rows)}
    origin = {"machines": count, "commit": commit()}
    victim, (batch, labels) = machine_watch(), evenly(*scored_machines(), count)
    full = told(samples_of(victim, batch, labels))
    for part in victim.modalities:
        if (f"no {part}", "") not in done:
            others = samples_of(victim.without(part), *without((batch, labels), part))
            found = {**told(others), "clean_work": full["work"]}
            keep(rows, {"threat": f"no {part}", "attack": "", **found, **origin})
    for threat, attacks in threats():
        lacking = [attack for attack in attacks if (threat, attack) not in done]
        if not lacking:
            continue
        samples = evaluate(victim, batch, labels, lacking, eps=threat, timed=0).samples
        for attack, own in samples[samples.attack != "clean"].groupby("attack", sort=False):
            if (threat, attack) not in done:
                done.add((threat, attack))
                keep(rows, {"threat": threat, "attack": attack, **told(own), **origin})
        print(threat, *lacking, flush=True)


def evenly(batch: PartsBatch, labels: Tensor, count: int) -> tuple[PartsBatch, Tensor]:
    """The first machines of every class, ``count`` in all."""
    kinds = labels.unique()
    first = [(labels == kind).nonzero()[: count // len(kinds), 0] for kind in kinds]
    return batch[torch.cat(first)], labels[torch.cat(first)]


def samples_of(victim: Victim, batch: PartsBatch, labels: Tensor) -> pd.DataFrame:
    """Of clean machines."""
    samples = evaluate(victim, batch, labels, [], timed=0).samples
    return samples[samples.attack == "clean"]


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per threat: attack success and agreement, then what the worst of it does."""
    found = {(row["threat"], row["attack"]): row for row in rows}
    order = [*dict.fromkeys(threat for threat, _ in threats()), "no vibration", "no camera"]
    return pd.DataFrame(
        _line(threat, {attack: row for (at, attack), row in found.items() if at == threat})
        for threat in order
        if any(at == threat for at, _ in found)
    )


def _line(threat: str, rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    worst = max(rows.values(), key=lambda row: row["work"])
    cells = {
        f"`{attack}`": f"{rows[attack]['success']:.3f} ({rows[attack]['agreement']:.0%})"
        if attack in rows
        else ""
        for attack in ("noise", RANDOM, *HOUSE, "AutoSlow")
    }
    return {
        "may change": threat if "" in rows else f"`{threat}`",
        **cells,
        "equals clean requests": f"{worst['work'] / worst['clean_work']:.2f}",
        "pay for the camera": f"{worst['paid']:.0%}",
        "accuracy": f"{worst['accuracy']:.1%}",
    }


def main() -> None:
    parser = parser_of("attacks on a gate between a sensor and a camera", ROWS)
    parser.add_argument("--machines", type=int, default=MACHINES, help="how many are attacked")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.table:
        run(args.rows, args.machines)
    print(markdown(table(kept(args.rows))))


if __name__ == "__main__":
    main()
