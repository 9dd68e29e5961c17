"""What a score on generated inputs tells of a score on real ones.

    python benchmarks/imitated_inputs.py
    python benchmarks/imitated_inputs.py --table

Sixty held-out inputs are given, and sixty generated after them, as ``effattack inputs`` does; both
are scored with no attacker and under the house attack of 20 gradients, the first thirty of each.
Every row that is finished is one line of ``imitated_inputs.jsonl``, and is not run again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.cells.spec import code_version
from effattack.inputs.imitating import imitate
from effattack.inputs.source import load_data
from effattack.models_zoo.digits import digits
from effattack.models_zoo.series.cbf import cbf
from effattack.models_zoo.text.sentences import requests
from effattack.threats import parse_threat
from effattack.victim import Victim, audit, load_victim

VICTIMS: dict[str, tuple[Callable[[str], tuple[Tensor, Tensor]], str]] = {
    "digits_cnn_early_exit": (digits, "linf:8/255"),
    "cbf_cnn_exit": (cbf, "linf:.1sd"),
    "text_exit": (requests, "swap:2"),
}
"""Name -> its data by split, and a budget."""
ADVERSARY = "Slowdown(steps=20)"
GIVEN, SCORED = 60, 30
ROWS = Path(__file__).with_suffix(".jsonl")
Row = Mapping[str, Any]


def rows_of(name: str) -> Iterator[Row]:
    """Of given inputs, and of generated ones."""
    data, threat = VICTIMS[name]
    victim = load_victim(name)
    inputs, labels = (part[:GIVEN] for part in data("heldout"))
    yield {"inputs": "given", **measured(victim, inputs, labels, threat)}
    with tempfile.TemporaryDirectory() as folder:
        like = Path(folder) / "given.npz"
        np.savez(like, inputs=inputs.numpy(), labels=labels.numpy())
        made = imitate(like, GIVEN)
        told = {"told_apart": made.fidelity.told_apart, "by_chance": made.fidelity.by_chance}
        generated = load_data(str(made.out), victim)
        yield {"inputs": "generated", **told, **measured(victim, *generated, threat)}


def measured(victim: Victim, inputs: Tensor, labels: Tensor, threat: str) -> dict[str, float]:
    """Means over the first inputs, clean and attacked."""
    clean, labels = victim.domain.snap(inputs[:SCORED]), labels[:SCORED]
    attacked = build(ADVERSARY, victim, parse_threat(threat))(clean, labels)
    before, after = audit(victim, clean), audit(victim, attacked)
    ceiling = victim.ceiling(clean)
    lost = (after.macs - before.macs).sum() / (ceiling - before.macs).sum()
    right = victim.task.right(victim.task.answer(before.logits), labels)
    return {
        "clean": (before.macs.sum() / ceiling.sum()).item(),
        "accuracy": right.double().mean().item(),
        "savings_retained": 1 - lost.item(),
    }


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """A line per victim and kind of inputs."""
    lines = [
        {
            "victim": f"`{row['victim']}`",
            "inputs": row["inputs"],
            "told apart": f"{row['told_apart']:.0%}" if "told_apart" in row else "",
            "clean work": f"{row['clean']:.1%}",
            "accuracy": f"{row['accuracy']:.0%}",
            "savings retained": f"{row['savings_retained']:.1%}",
        }
        for row in rows
    ]
    return pd.DataFrame(lines)


def main() -> None:
    args = parser_of("scores on generated inputs", ROWS).parse_args()
    torch.set_num_threads(1)
    rows = kept(args.rows)
    if args.table:
        print(markdown(table(rows)))
        return
    done = {row["victim"] for row in rows}
    for name in [name for name in VICTIMS if name not in done]:
        for row in rows_of(name):
            keep(args.rows, {"victim": name, **row, "code": code_version()})
            print(name, row, flush=True)


if __name__ == "__main__":
    main()
