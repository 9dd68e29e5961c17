"""What is left of published defences under attacks that know them.

    python benchmarks/defences.py [--images 20] [--attack "Slowdown(steps=20)" AutoSlow]
        [--victim NAME ...]

prints one row per victim on digits and attack, defended and not, in Markdown (docs/defences.md).
"""

from __future__ import annotations

import argparse

import torch

from effattack import evaluate
from effattack.attacks import build
from effattack.budgets import parse_number
from effattack.models_zoo import load
from effattack.models_zoo.digits import digits

HERE = "effattack.models_zoo.defences.digits"
VICTIMS = [
    "digits_vit_ats",
    f"{HERE}:ats_cap_confidence",
    f"{HERE}:ats_cap_random",
    "digits_vit_avit",
    f"{HERE}:avit_cap_confidence",
    f"{HERE}:avit_cap_random",
    f"{HERE}:avit_patch_pool",
    "digits_cnn_early_exit",
    f"{HERE}:cnn_hysteresis",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--attack", nargs="+", default=["Slowdown(steps=20)"])
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--victim", nargs="+", default=VICTIMS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = (part[: options.images] for part in digits("test"))
    heldout = tuple(part[:64] for part in digits("heldout"))
    eps = parse_number(options.eps, "eps")
    print(
        "| victim | attack | accuracy, clean → attacked | MACs, clean → attacked | max | "
        "attack success |\n|---|---|---:|---:|---:|---:|"
    )
    for name in options.victim:
        victim = load(name)
        attacks = [build(text, victim, eps) for text in options.attack]
        scores = evaluate(victim, images, labels, attacks, timed=0, fit=heldout).scores()
        rows = scores.set_index("attack")
        for attack in attacks:
            clean, row = rows.loc["clean"], rows.loc[attack.name]
            print(
                f"| `{victim.name}` | `{attack.name}` | {clean.accuracy:.0%} → {row.accuracy:.0%} "
                f"| {row.clean_macs / 1e6:.2f} M → {row.macs / 1e6:.2f} M | "
                f"{victim.max_macs / 1e6:.2f} M | {row.attack_success:.0%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
