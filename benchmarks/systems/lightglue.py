"""What LightGlue's adaptive depth and width save on pairs of photographs, and what is taken back.

Each photograph, resized to 256 x 192, is paired with itself under a random homography. The first
image is attacked: 15 gradients in the house objective, noise of the same budget beside it. Under
``keep`` stand the inputs of the same search whose answer agrees with the clean one: the task has no
gradient of its own, so that keeping it filters iterates and changes no step.

Settings were looked at on the first ``LOOKED_AT`` photographs of a folder; those that follow are
measured. Rows are kept one by one.

    EFFATTACK_LIGHTGLUE=... python benchmarks/real_systems.py lightglue PHOTOGRAPHS
    python benchmarks/real_systems.py lightglue --table
"""

from __future__ import annotations

import argparse
import json
import time
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from kept_rows import keep, kept
from PIL import Image
from tables import markdown
from torch import Tensor

from effattack.attacks import Noise, Slowdown
from effattack.cells.spec import code_version
from effattack.counting.macs import MacsCounter
from effattack.domains import PartsBatch
from effattack.models_zoo.matching.lightglue import LightGlue
from effattack.models_zoo.matching.pairs import corner_error, seen_from_elsewhere
from effattack.victim import Trace

SIZE = (192, 256)
THREAT = "first:linf:8/255"
STEPS = 15
LOOKED_AT = 3
ROWS = Path(__file__).parents[2] / "reports" / "real" / "lightglue.jsonl"
NEAR = 3.0
"""Pixels within which a match supports a homography."""


class Watched(LightGlue):
    """Keeps what it was traced on: inputs, MACs and matches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[PartsBatch, float, Tensor]] = []

    def trace(self, batch: PartsBatch) -> Trace:
        trace = super().trace(batch)
        self.seen.append((batch.detach().clone(), trace.macs.item(), trace.logits.detach()))
        return trace


def pair_of(photograph: Path, seed: int) -> tuple[PartsBatch, Tensor]:
    """A photograph with its view from elsewhere, and the homography between them."""
    height, width = SIZE
    with Image.open(photograph) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    inputs = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    pairs, by = seen_from_elsewhere(inputs, seed)
    return pairs, by[0]


def told(victim: Watched, pair: PartsBatch, by: Tensor, clean: Tensor) -> dict[str, Any]:
    """What the deployed path does on a pair; its MACs are counted, and are those declared."""
    with torch.no_grad():
        trace = victim.trace(pair)
        with MacsCounter() as counter:
            answer = victim(pair)
    if counter.total != trace.macs.item():
        raise RuntimeError(f"{counter.total} MACs were counted, {trace.macs.item()} declared")
    (matches,) = victim.task.members(answer)
    error = corner_error(estimated(matches), by, SIZE)
    return {
        "macs": counter.total,
        "layers": counter.tallies["layers"],
        "matches": len(matches),
        "kept": victim.task.shares(clean, answer).item(),
        "corner_error": error if isfinite(error) else None,
    }


def estimated(matches: Tensor) -> Tensor | None:
    """The homography that most matches support (RANSAC of OpenCV); None where there is none."""
    import cv2

    if len(matches) < 4:
        return None
    here, there = matches[:, :2].double().numpy(), matches[:, 2:4].double().numpy()
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(here, there, cv2.RANSAC, NEAR)
    return None if found is None else torch.from_numpy(found)


def row_of(victim: Watched, photograph: Path, seed: int) -> dict[str, Any]:
    """Clean, noise, attacked, and attacked with its matches kept."""
    started, (pair, by) = time.process_time(), pair_of(photograph, seed)
    attack = Slowdown(victim, threat=THREAT, steps=STEPS, seed=seed)
    victim.seen = []  # from here on, the clean pair first
    attacked = attack(pair)
    spent = time.process_time() - started
    clean = victim.seen[0][2]
    agreeing = [s for s in victim.seen if victim.task.agree(clean, s[2]).item()]
    kept = max(agreeing, key=lambda s: s[1])[0]
    runs = {
        "clean": pair,
        "noise": Noise(victim, threat=THREAT, seed=seed)(pair),
        "attacked": attacked,
        "keep": kept,
    }
    found = {name: told(victim, inputs, by, clean) for name, inputs in runs.items()}
    return {
        "photograph": photograph.name,
        "seed": seed,
        "ceiling": victim.max_macs,
        **found,
        "cpu_seconds": round(spent, 1),
        "code": code_version(),
    }


def run(folder: Path, rows: Path, which: range) -> None:
    """Rows that are not there yet, each kept as soon as it is; none of what was looked at."""
    victim, photographs = Watched.from_package(), sorted(folder.iterdir())
    for seed in which:
        photograph = photographs[seed]
        if photograph.name in {line["photograph"] for line in kept(rows)}:
            continue
        row = row_of(victim, photograph, seed)
        print(json.dumps(row), flush=True)
        if seed >= LOOKED_AT:
            keep(rows, row)


def table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per attack, over all pairs."""
    shown = []
    for name in ("clean", "noise", "attacked", "keep"):
        runs = [line[name] for line in lines]
        back = [
            (line[name]["macs"] - line["clean"]["macs"]) / (line["ceiling"] - line["clean"]["macs"])
            for line in lines
        ]
        found = [run["corner_error"] for run in runs]
        errors = np.array([inf if error is None else error for error in found])
        shown.append(
            {
                "inputs": name,
                "pairs": len(runs),
                "layers": f"{np.mean([run['layers'] for run in runs]):.2f}",
                "GMACs": f"{np.mean([run['macs'] for run in runs]) / 1e9:.3f}",
                "savings taken back": "" if name == "clean" else f"{np.mean(back):.1%}",
                "least": "" if name == "clean" else f"{np.min(back):.1%}",
                "matches": f"{np.mean([run['matches'] for run in runs]):.0f}",
                "clean matches kept": f"{np.mean([run['kept'] for run in runs]):.0%}",
                "corner error, median": f"{np.median(errors):.2f} px",
                "beyond 5 px": f"{int((errors > 5).sum())} of {len(runs)}",
            }
        )
    return pd.DataFrame(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description="LightGlue on pairs of photographs")
    parser.add_argument("folder", type=Path, nargs="?", help="of photographs")
    parser.add_argument("--first", type=int, default=LOOKED_AT, help="number of the first one")
    parser.add_argument("--pairs", type=int, default=24, help="how many are run from there on")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where rows are kept")
    parser.add_argument("--table", action="store_true", help="print the rows that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(kept(args.rows))))
    elif args.folder is None:
        parser.error("name a folder of photographs")
    else:
        run(args.folder, args.rows, range(args.first, args.first + args.pairs))


if __name__ == "__main__":
    main()
