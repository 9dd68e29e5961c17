"""MTCNN on photographs: what 20 gradients take, with the same faces or not, and what less knowing
attackers take.

    python benchmarks/real_systems.py mtcnn PHOTOGRAPHS
    python benchmarks/real_systems.py mtcnn --table

Photographs are the files of a folder in the order of their names, resized to 320 x 240. The first
ten are for looking, the next twenty are measured, at ε = 8/255: noise; the house attack of 20
gradients, the same where the faces are to stay, and the same made for a detector that JPEG 90
stands before; AutoSlow, of some 220 gradients; 60 queries, which is as many forward passes; and
transfer from a P-Net of our own (``own_pnet.py``). Each row is judged on the detector as it is and
behind JPEG 90. What the house attack made is timed, beside facenet-pytorch itself. The weights
come with that package. A row that is there is not run again; processes that each run one attack may
share a file of rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from kept_rows import commit, keep, kept, parser_of
from own_pnet import own_source
from PIL import Image
from tables import markdown
from torch import Tensor

from effattack.attacks import Attack, AutoSlow, Noise, QueryAttack, Slowdown
from effattack.counting.macs import MacsCounter
from effattack.errors import AuditError
from effattack.models_zoo.detection.mtcnn import MTCNN
from effattack.victim.entry import Entry, jpeg

SIZE = (240, 320)
EPS, STEPS, QUERIES = 8 / 255, 20, 60
LOOKED_AT = 10
MEASURED = 20
ROWS = Path(__file__).parents[2] / "reports" / "real" / "mtcnn.jsonl"
Detector = Callable[[Tensor], Any]
ENTRY = [jpeg(90)]


def through_entry(victim: MTCNN) -> Attack:
    """The house attack, made for what stands before the detector."""
    return Slowdown(Entry(victim, through=ENTRY), eps=EPS, steps=STEPS)


def from_our_own(victim: MTCNN) -> Attack:
    """The house attack, made for a P-Net of our own, whatever the detector."""
    return Slowdown(own_source((3, *SIZE)), eps=EPS, steps=STEPS)


ATTACKS: dict[str, tuple[str, Callable[[MTCNN], Attack]]] = {
    "noise": ("nothing", partial(Noise, eps=EPS)),
    "house": ("white box", partial(Slowdown, eps=EPS, steps=STEPS)),
    "house, same faces": (
        "white box",
        partial(Slowdown, eps=EPS, steps=STEPS, keep_prediction=True),
    ),
    "house, entry known": ("white box and entry", through_entry),
    "AutoSlow": ("white box", partial(AutoSlow, eps=EPS)),
    "queries": ("queries", partial(QueryAttack, eps=EPS, queries=QUERIES)),
    "transfer": ("transfer", from_our_own),
}
"""Name -> what the attacker knows, and the attack."""


def photograph(file: Path) -> Tensor:
    """(1, 3, *SIZE) in [0, 1]."""
    height, width = SIZE
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255


def measured(victim: MTCNN, images: Tensor, clean: Tensor) -> dict[str, Any]:
    """What the deployed path does with one photograph, as counted.

    Raises:
        AuditError: where the trace declares other work.
    """
    with torch.no_grad():
        trace, before = victim.trace(images), victim.trace(clean)
        with MacsCounter() as counter:
            victim(images)
    counts = {name: int(count.item()) for name, count in trace.also.items()}
    told = {name: counter.tallies.get(name, 0) for name in counts}
    if (counter.total, told) != (trace.macs.item(), counts):
        raise AuditError(f"{counter.total:,} MACs, {told} are not those of the trace")
    refined = int(trace.gates[1].reached.sum())
    return {
        "macs": counter.total,
        "ratio": counter.total / before.macs.item(),
        "cells": int(trace.gates[0].active.sum()),
        "to_rnet": refined,
        "to_onet": counts["crops"] - refined,
        "faces": trace.logits.shape[1],
        "clean_faces": before.logits.shape[1],
        "same_faces": bool(victim.task.agree(before.logits, trace.logits)),
        "linf": (images - clean).abs().max().item(),
        **counts,
    }


def timed(detectors: dict[str, Detector], images: dict[str, Tensor]) -> dict[str, float]:
    """CPU seconds of each detector on each image: the least of three, all taken in turns."""
    least: dict[str, float] = {}
    for _ in range(3):
        for (name, detect), (kind, image) in product(detectors.items(), images.items()):
            started = time.process_time()
            with torch.no_grad():
                detect(image)
            taken, key = time.process_time() - started, f"{name}_seconds_{kind}"
            least[key] = min(taken, least.get(key, taken))
    return least


def shipped() -> Detector:
    """``detect_face`` of facenet-pytorch, on an image (1, 3, H, W) in [0, 1]."""
    package = import_module("facenet_pytorch.models.mtcnn")
    networks = [getattr(package, name)().eval() for name in ("PNet", "RNet", "ONet")]
    settings = [[0.6, 0.7, 0.7], 0.709, torch.device("cpu")]

    def detect(image: Tensor) -> Any:
        pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
        return package.detect_face(pixels.numpy(), 20, *networks, *settings)

    return detect


def run(folder: Path, rows: Path, photographs: int, named: str) -> None:
    """Measure what ``rows`` lack, of all attacks or one."""
    victim = MTCNN.from_facenet(input_shape=(3, *SIZE))
    detectors: dict[str, Detector] = {"ours": victim, "facenet": shipped()}
    origin = {"commit": commit(), "command": "benchmarks/real_systems.py mtcnn PHOTOGRAPHS"}
    done = {(row["photograph"], row["attack"]) for row in kept(rows)}
    files = sorted(folder.iterdir())[LOOKED_AT : LOOKED_AT + photographs]
    for file, name in product(files, [named] if named else ATTACKS):
        if (file.name, name) in done:
            continue
        clean, (knowledge, make) = photograph(file), ATTACKS[name]
        images = make(victim)(clean, victim(clean))
        found = measured(victim, images, clean)
        found["jpeg_ratio"] = _behind(Entry(victim, through=ENTRY), images, clean)
        if name == "house":
            found |= timed(detectors, {"clean": clean, "attacked": images})
        row = {"photograph": file.name, "attack": name, "knowledge": knowledge, **found, **origin}
        keep(rows, row)
        print(file.name, name, f"{found['ratio']:.2f}", flush=True)


def _behind(entry: Entry, images: Tensor, clean: Tensor) -> float:
    """Ratio of the MACs of two files, both compressed before the detector sees them."""
    with torch.no_grad():
        return (entry.trace(images).macs / entry.trace(clean).macs).item()


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per attack that was run, means over photographs."""
    frame = pd.DataFrame(rows)
    lines = []
    for name, (knowledge, _) in ATTACKS.items():
        of = frame[frame["attack"] == name]
        if of.empty:
            continue
        lines.append(
            {
                "attack": name,
                "knowledge": knowledge,
                "photographs": len(of),
                "equals clean requests": f"{of['ratio'].mean():.2f}",
                "least": f"×{of['ratio'].min():.2f}",
                "most": f"×{of['ratio'].max():.2f}",
                "R-Net crops": f"{of['to_rnet'].mean():.0f}",
                "O-Net crops": f"{of['to_onet'].mean():.0f}",
                "faces": f"{of['faces'].mean():.1f}",
                "same faces": f"{of['same_faces'].mean():.0%}",
                "through JPEG 90": f"×{of['jpeg_ratio'].mean():.2f}",
            }
        )
    return pd.DataFrame(lines).replace("×nan", "")


def speeds(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """CPU seconds of both detectors, means over photographs."""
    house = pd.DataFrame(rows).query("attack == 'house'")
    lines = []
    for name in ("ours", "facenet"):
        clean, slow = (house[f"{name}_seconds_{kind}"] for kind in ("clean", "attacked"))
        ratio = f"×{(slow / clean).mean():.1f}"
        lines.append(
            {
                "detector": name,
                "clean, s": f"{clean.mean():.3f}",
                "attacked, s": f"{slow.mean():.3f}",
            }
            | {"mean ratio": ratio}
        )
    return pd.DataFrame(lines)


def main() -> None:
    parser = parser_of("MTCNN on photographs", ROWS)
    parser.add_argument("folder", type=Path, nargs="?", help="of photographs")
    parser.add_argument("--photographs", type=int, default=MEASURED, help="how many are measured")
    parser.add_argument("--attack", default="", help=f"one of {', '.join(ATTACKS)}; else all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        rows = kept(args.rows)
        print(markdown(table(rows)), markdown(speeds(rows)), sep="\n\n")
    elif args.folder is None:
        parser.error("name a folder of photographs")
    else:
        run(args.folder, args.rows, args.photographs, args.attack)
