"""What LightGlue's adaptive depth and width save on pairs of photographs, and what is taken back.

Each photograph, resized to 256 x 192, is paired with itself under a random homography. The first
image is attacked: 15 gradients in the house objective, without and with ``keep_prediction``; noise
of the same budget beside it. What was attacked is also sent through JPEG 90, of which the attack
knew nothing, beside the clean image sent through it.

Rows were looked at on the first ``LOOKED_AT`` photographs of the folder, and margins tried on its
last ``TRIED_ON``; those between are measured, and their rows kept one by one, of ``keep`` last.

    EFFATTACK_LIGHTGLUE=... python benchmarks/real_systems.py lightglue PHOTOGRAPHS
    python benchmarks/real_systems.py lightglue --table
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from PIL import Image
from tables import markdown
from torch import Tensor

from effattack.attacks import Noise, Slowdown
from effattack.attacks.searches.parts import OnePart
from effattack.cells.spec import code_version
from effattack.counting.macs import MacsCounter
from effattack.domains import Batch, PartsBatch
from effattack.models_zoo.matching.lightglue import LightGlue
from effattack.models_zoo.matching.pairs import corner_error, seen_from_elsewhere
from effattack.victim import Victim
from effattack.victim.entry import Entry, jpeg

SIZE = (192, 256)
PART = "first"
THREAT = f"{PART}:linf:8/255"
STEPS = 15
LOOKED_AT, TRIED_ON = 17, 10
ROWS = Path(__file__).parents[2] / "reports" / "real" / "lightglue.jsonl"
NEAR = 3.0
"""Pixels within which a match supports a homography."""


class Shown(NamedTuple):
    """A line of the table."""

    inputs: str
    knowledge: str
    beside: str
    """Whose savings are taken back: the same pair, clean, at the same entry."""


LINES = {
    "clean": Shown("clean", "", "clean"),
    "noise": Shown("noise", "nothing", "clean"),
    "attacked": Shown("`Slowdown(steps=15)`", "white box", "clean"),
    "keep": Shown("the same, `keep_prediction`", "white box", "clean"),
    "clean_jpeg": Shown("clean, JPEG 90", "", "clean_jpeg"),
    "attacked_jpeg": Shown("attacked, JPEG 90", "white box, but for the JPEG", "clean_jpeg"),
}


def pair_of(photograph: Path, seed: int) -> tuple[PartsBatch, Tensor]:
    """A photograph with its view from elsewhere, and the homography between them."""
    height, width = SIZE
    with Image.open(photograph) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    inputs = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    pairs, by = seen_from_elsewhere(inputs, seed)
    return pairs, by[0]


def told(victim: Victim, inputs: Batch, by: Tensor, clean: Tensor | None = None) -> dict[str, Any]:
    """What the deployed path does on a pair; its MACs are counted, and are those declared.

    Without a ``clean`` answer, this is the clean one.
    """
    task: Any = victim.task
    with torch.no_grad():
        trace = victim.trace(inputs)
        with MacsCounter() as counter:
            answer = victim(inputs)
    if counter.total != trace.macs.item():
        raise RuntimeError(f"{counter.total} MACs were counted, {trace.macs.item()} declared")
    (matches,) = task.members(answer)
    error = corner_error(estimated(matches), by, SIZE)
    return {
        "macs": counter.total,
        "layers": counter.tallies["layers"],
        "matches": len(matches),
        "kept": 1.0 if clean is None else task.shares(clean, answer).item(),
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


def attacked(victim: LightGlue, pair: PartsBatch, seed: int, *, right: bool) -> PartsBatch:
    """A pair after the search; ``right``: such that its answer agrees with the clean one."""
    search = Slowdown(victim, threat=THREAT, steps=STEPS, keep_prediction=right, seed=seed)
    found: PartsBatch = search(pair)
    return found


def looked_at(
    victim: LightGlue, pair: PartsBatch, by: Tensor, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and rows of everything but ``keep``."""
    noise = Noise(victim, threat=THREAT, seed=seed)(pair)
    found = attacked(victim, pair, seed, right=False)
    behind = Entry(OnePart(victim, PART, pair), through=[jpeg(90)])
    with torch.no_grad():
        clean, compressed = victim(pair), behind(pair[PART])
    yield "clean", told(victim, pair, by)
    yield "noise", told(victim, noise, by, clean)
    yield "attacked", told(victim, found, by, clean)
    yield "clean_jpeg", told(behind, pair[PART], by)
    yield "attacked_jpeg", told(behind, found[PART], by, compressed)


def kept_right(
    victim: LightGlue, pair: PartsBatch, by: Tensor, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and row of the search whose answers agree."""
    found = attacked(victim, pair, seed, right=True)
    with torch.no_grad():
        clean = victim(pair)
    yield "keep", told(victim, found, by, clean)


def run(folder: Path, rows: Path, which: range) -> None:
    """Rows that are not there yet, each kept as soon as it is; none of what was looked at."""
    victim, photographs = LightGlue.from_package(), sorted(folder.iterdir())
    for first, made in (("clean", looked_at), ("keep", kept_right)):
        for seed in which:
            name = photographs[seed].name
            if (name, first) in {(row["photograph"], row["inputs"]) for row in kept(rows)}:
                continue
            started, (pair, by) = time.process_time(), pair_of(photographs[seed], seed)
            found = list(made(victim, pair, by, seed))
            spent = round(time.process_time() - started, 1)
            for inputs, told_of in found:
                row = {"photograph": name, "seed": seed, "inputs": inputs, **told_of}
                row |= {"ceiling": victim.max_macs, "cpu_seconds": spent, "code": code_version()}
                print(json.dumps(row), flush=True)
                if LOOKED_AT <= seed < len(photographs) - TRIED_ON:
                    keep(rows, row)


def table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per kind of inputs, over the pairs that it was made of."""
    of = {(line["photograph"], line["inputs"]): line for line in lines}
    shown = []
    for name, (inputs, knowledge, beside) in LINES.items():
        runs = [line for line in lines if line["inputs"] == name]
        if not runs:
            continue
        clean = [of[run["photograph"], beside] for run in runs]
        macs, before, ceiling = (
            np.array([line[key] for line in some], float)
            for some, key in ((runs, "macs"), (clean, "macs"), (runs, "ceiling"))
        )
        back = (macs - before) / (ceiling - before)
        found = [run["corner_error"] for run in runs]
        errors = np.array([inf if error is None else error for error in found])
        changed = name != beside
        shown.append(
            {
                "inputs": inputs,
                "knowledge": knowledge,
                "pairs": len(runs),
                "layers": f"{np.mean([run['layers'] for run in runs]):.2f}",
                "GMACs": f"{macs.mean() / 1e9:.3f}",
                "savings taken back": f"{back.mean():.1%}" if changed else "",
                "least": f"{back.min():.1%}" if changed else "",
                "equals clean requests": f"{(macs / before).mean():.2f}",
                "matches": f"{np.mean([run['matches'] for run in runs]):.0f}",
                "clean matches kept": f"{np.mean([run['kept'] for run in runs]):.0%}",
                "corner error, median": f"{np.median(errors):.2f} px",
                "beyond 5 px": f"{int((errors > 5).sum())} of {len(runs)}",
            }
        )
    return pd.DataFrame(shown)


def main() -> None:
    parser = parser_of("LightGlue on pairs of photographs", ROWS)
    parser.add_argument("folder", type=Path, nargs="?", help="of photographs")
    parser.add_argument("--first", type=int, default=LOOKED_AT, help="number of the first one")
    parser.add_argument("--pairs", type=int, default=24, help="how many are run from there on")
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
