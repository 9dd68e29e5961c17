"""What a file costs an entry by the pixels that it declares: seconds of the codec, not MACs.

    python benchmarks/entry_size.py

The victim's MACs do not change: the picture is the same.
"""

from __future__ import annotations

import torch

from effattack import audit
from effattack.models_zoo.digits import digits
from effattack.threats import parse_threat
from effattack.victim import load_victim

SIDES = (32, 256, 1024, 4096)
ROUNDS = 3


def main() -> None:
    images = digits("heldout")[0][:1]
    print("| declared | requests (pixels) | codec, over clean |")
    print("|---|---:|---:|")
    victim = load_victim("digits_cnn_early_exit", through="resize(32)")
    found = {side: parse_threat(f"size:{side}").on(victim.domain).largest(images) for side in SIDES}
    seconds: dict[int, list[float]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side, file in found.items():
            seconds[side].append(audit(victim, file).outside[0]["codec"])
    clean = min(seconds[SIDES[0]])
    for side in SIDES:
        pixels = torch.tensor(found[side].shape[2:]).prod() / images[0, 0].numel()
        print(f"| {side} x {side} | ×{pixels:,.0f} | ×{min(seconds[side]) / clean:,.0f} |")


if __name__ == "__main__":
    main()
