"""Detectors of scenes under domain shift: what it costs, and what adaptation to it changes.

    python benchmarks/shifted_scenes.py
    python benchmarks/shifted_scenes.py --table

Each detector sees the test scenes as they are and under every shift of them, at its deployed caps:
all 200 with no attacker; the first 20, at ε = 8/255, under noise, and under the house attack of 50
gradients. All work is executed work. Every row that is finished is one line of
``shifted_scenes.jsonl``, and is not run again; ``--table`` prints them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
from kept_rows import command
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.scenes import SHIFTS, scenes
from effattack.threats import parse_threat
from effattack.victim import Audit, Victim, audit, load_victim

DETECTORS = ("scenes_detector", "scenes_two_stage", "scenes_two_stage_adapted")
CLEAN, NOISE, HOUSE = "clean", "noise", "Slowdown(steps=50)"
EPS = "linf:8/255"
ATTACKED = 20
"""Of the test scenes, the first so many."""
ROWS = Path(__file__).with_suffix(".jsonl")
Row = Mapping[str, Any]


def measured(victim: Victim, shift: str, attack: str) -> Row:
    """Means over the scenes of one shift: what is executed, and what is found."""
    images, truth = scenes("test", shift)
    if attack == CLEAN:
        return told(audit(victim, images), truth)
    clean, truth = images[:ATTACKED], truth[:ATTACKED]
    images = build(attack, victim, parse_threat(EPS), seed=0)(clean, truth)
    before, after = audit(victim, clean), audit(victim, images)
    judged, from_judged = (done.counts.get(victim.currency, done.macs) for done in (after, before))
    room = victim.ceiling(clean, victim.currency) - from_judged
    lost = ((judged - from_judged).sum() / room.sum()).item()
    of_clean = {f"clean_{name}": number for name, number in told(before, truth).items()}
    return {**told(after, truth), **of_clean, "savings_retained": 1 - lost}


def told(done: Audit, truth: Tensor) -> dict[str, float]:
    """Executed work, each kind a mean over scenes, and the average precision of the answers."""
    work = {"macs": done.macs, **done.counts}
    means = {name: numbers.mean().item() for name, numbers in work.items()}
    return {"scenes": len(truth), **means, "precision": average_precision(done.logits, truth)}


def with_no_attacker(rows: Sequence[Row]) -> pd.DataFrame:
    """A line per detector and shift, of all scenes."""
    lines = [
        {
            **_named(row),
            "average precision": f"{row['precision']:.1%}",
            "proposals": f"{row['proposals']:.1f}" if "proposals" in row else "",
            "pairs": f"{row['pairs']:.0f}",
            "MACs": f"{row['macs'] / 1e6:.1f} M",
        }
        for row in _of(CLEAN, rows)
    ]
    return pd.DataFrame(lines)


def under_attack(rows: Sequence[Row]) -> pd.DataFrame:
    """The same of the scenes that are attacked, from clean to attacked ones."""
    lines = []
    for row, noise in zip(_of(HOUSE, rows), _of(NOISE, rows), strict=True):
        lines.append(
            {
                **_named(row),
                "proposals": _moved(row, "proposals") if "proposals" in row else "",
                "pairs": _moved(row, "pairs"),
                "MACs, millions": _moved(row, "macs", 1e-6),
                "savings retained": f"{row['savings_retained']:.1%}",
                "under noise": f"{noise['savings_retained']:.1%}",
                "average precision, %": _moved(row, "precision", 100),
            }
        )
    return pd.DataFrame(lines)


def _of(attack: str, rows: Sequence[Row]) -> list[Row]:
    """Detectors in their order, each shift in its own."""
    order = list(product(DETECTORS, SHIFTS))
    found = [row for row in rows if row["attack"] == attack]
    return sorted(found, key=lambda row: order.index((row["victim"], row["shift"])))


def _named(row: Row) -> dict[str, str]:
    return {"detector": f"`{row['victim']}`", "shift": row["shift"]}


def _moved(row: Row, name: str, unit: float = 1.0) -> str:
    return f"{row[f'clean_{name}'] * unit:.1f} → {row[name] * unit:.1f}"


def main() -> None:
    command(
        "detectors of scenes under domain shift",
        ROWS,
        ("victim", "shift", "attack"),
        product(DETECTORS, SHIFTS, (CLEAN, NOISE, HOUSE)),
        lambda name, *asked: measured(load_victim(name), *asked),
        lambda rows: "\n\n".join(map(markdown, (with_no_attacker(rows), under_attack(rows)))),
    )


if __name__ == "__main__":
    main()
