"""One patch for all photographs, on a ViT-Tiny that drops tokens by ATS.

    export EFFATTACK_IMAGENET_DATA=nips17 EFFATTACK_IMAGENET_WEIGHTS=weights
    python benchmarks/real_systems.py ats
    python benchmarks/real_systems.py ats --table

``imagenet.py`` says where to get the two folders. A patch of 64 x 64 pixels at the top left of
224 x 224 is learnt on every other photograph, by SlowFormer's loss and by the house objective: on
the first ``LEARNT_ON`` of these; settings were looked at on the next ``LOOKED_AT``. Patches are
kept as pictures, and judged on the first photographs of the other half, random pixels beside them.
A row that is there is not run again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from imagenet_attacked import seen, vit_tiny_ats
from kept_rows import keep, kept, parser_of
from PIL import Image
from tables import markdown
from torch import Tensor

from effattack.attacks import Attack, Clean, Noise, SlowFormer, UniversalSlowdown
from effattack.cells.spec import code_version
from effattack.victim import Victim, audit

THREAT = "patch:64@0,0"
SETTINGS: dict[str, Any] = {"threat": THREAT, "epochs": 20, "batch": 2}
LEARNT_ON, LOOKED_AT, MEASURED = 32, 16, 40
KNOWLEDGE = {
    "clean": "",
    "random pixels": "nothing",
    "SlowFormer": "white box, other photographs",
    "UniversalSlowdown": "white box, other photographs",
}
ROWS = Path(__file__).parents[2] / "reports" / "real" / "ats.jsonl"


def attacks(victim: Victim, folder: Path) -> dict[str, Attack]:
    """By name; patches that are not in the folder are learnt."""
    learnt = (SlowFormer(victim, **SETTINGS), UniversalSlowdown(victim, **SETTINGS))
    for attack in learnt:
        file = folder / f"ats_{attack.label}.png"
        if not file.exists():
            images, labels = (part[:LEARNT_ON] for part in seen(0))
            write_patch(file, attack.fit(images, labels).perturbation)
        attack.perturbation = read_patch(file)
    fixed = {"clean": Clean(victim), "random pixels": Noise(victim, threat=THREAT)}
    return {**fixed, **{attack.label: attack for attack in learnt}}


def read_patch(file: Path) -> Tensor:
    """(1, 3, side, side) in [0, 1], of a picture."""
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255


def write_patch(file: Path, patch: Tensor) -> None:
    """The same, to 8 bits."""
    pixels = (patch[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
    Image.fromarray(pixels.numpy()).save(file)


def run(rows: Path, photographs: int) -> None:
    """Rows that are not there yet; their MACs are counted, and are those declared."""
    victim = vit_tiny_ats()
    images, labels = (part[:photographs] for part in seen(1))
    clean, done = audit(victim, images), {(row["photograph"], row["inputs"]) for row in kept(rows)}
    for name, attack in attacks(victim, rows.parent).items():
        attacked = attack(images, labels)
        for number, label in enumerate(labels):
            if (number, name) in done:
                continue
            found, one = audit(victim, attacked[number : number + 1]), clean.logits[number]
            row = {
                "photograph": number,
                "inputs": name,
                "macs": found.macs.item(),
                "clean_macs": clean.macs[number].item(),
                "ceiling": victim.ceiling(images[:1]).item(),
                "right": bool(found.logits.argmax() == label),
                "same_class": bool(found.logits.argmax() == one.argmax()),
                "code": code_version(),
            }
            keep(rows, row)
            print(name, number, f"{row['macs'] / row['clean_macs']:.3f}", flush=True)


def table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per kind of inputs, over the photographs."""
    shown = []
    for name, some in pd.DataFrame(lines).groupby("inputs", sort=False):
        ratio = some.macs / some.clean_macs
        back = (some.macs - some.clean_macs).sum() / (some.ceiling - some.clean_macs).sum()
        shown.append(
            {
                "inputs": name,
                "knowledge": KNOWLEDGE[str(name)],
                "photographs": len(some),
                "M MACs": f"{some.macs.mean() / 1e6:.1f}",
                "equals clean requests": f"{ratio.mean():.3f}",
                "least, most": f"×{ratio.min():.2f}, ×{ratio.max():.2f}",
                "savings taken back": "" if name == "clean" else f"{back:.1%}",
                "right": f"{some.right.mean():.0%}",
                "class as clean": f"{some.same_class.mean():.0%}",
            }
        )
    return pd.DataFrame(shown)


def main() -> None:
    parser = parser_of("a universal patch on ViT-Tiny with ATS", ROWS)
    parser.add_argument("--photographs", type=int, default=MEASURED, help="how many are measured")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(kept(args.rows))))
    else:
        run(args.rows, args.photographs)


if __name__ == "__main__":
    main()
