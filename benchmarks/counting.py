"""What it costs to count the MACs of an input, beside running it, on the embedded victims.

    python benchmarks/counting.py --out reports/counting.csv

All columns but ``forward_ms`` are multiples of the bare forward, timed in turn in one run:
``counted`` under the counter alone, ``audited`` as every scored row is (counted in sight, and
traced), and ``examined``, the invariant that runs once per victim and in an audit wherever a path
is longer than those before.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Generator, Tensor

from effattack.counting.macs import MacsCounter
from effattack.registry import VICTIMS, entries
from effattack.victim import Victim, audit, load_victim
from effattack.victim.checks import check_seen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim", action="append")
    parser.add_argument("--rounds", type=int, default=15, help="calls of each kind, in turn (15)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [costs(load_victim(name), options.rounds) for name in options.victim or entries(VICTIMS)]
    frame = pd.DataFrame(rows)
    print(frame.to_string(index=False, float_format=lambda v: f"{v:.3g}"), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(options.out, index=False)
    return 0


def costs(victim: Victim, rounds: int) -> dict[str, float | str]:
    """Median CPU time of each kind of call on one noise image, over that of the bare forward."""
    image = torch.rand(1, *victim.input_shape, generator=Generator().manual_seed(0))
    kinds: dict[str, Callable[[], object]] = {
        "bare": lambda: victim(image),
        "counted": lambda: count(victim, image),
        "audited": lambda: audit(victim, image),
        "examined": lambda: check_seen(victim, image),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    with torch.no_grad():
        for _ in range(rounds + 1):
            for kind, call in kinds.items():
                started = time.process_time()
                call()
                seconds[kind].append(time.process_time() - started)
    medians = {kind: statistics.median(values[1:]) for kind, values in seconds.items()}
    bare = medians.pop("bare")
    return {
        "victim": victim.name,
        "forward_ms": bare * 1e3,
        **{kind: median / bare for kind, median in medians.items()},
    }


def count(victim: Victim, image: Tensor) -> None:
    with MacsCounter():
        victim(image)


if __name__ == "__main__":
    sys.exit(main())
