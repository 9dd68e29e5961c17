"""What attacked images do to the batch they travel in, on the embedded victims.

    python benchmarks/batching.py --out reports/batching.csv

Latency and executed MACs of a batch against the number of attacked images in it: images run one by
one (ATS), escalated sub-batches (the cascade), outlier columns that batch mates share (LLM.int8()).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
import torch

from effattack.attacks import build
from effattack.inputs.source import load_data, subset
from effattack.measure.batching import batch_curve
from effattack.measure.clocks import clock_named
from effattack.victim import load_victim

VICTIMS = ("digits_vit_ats", "digits_tinysaver_cascade", "digits_vit_llm_int8")
SHOWN = ["victim", "attacked", "seconds", "latency_ratio", "latency_low", "latency_high"]
SHOWN += ["macs_ratio", "contamination"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victim", action="append")
    parser.add_argument("--attack", default="Slowdown")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=8, help="the units of the interval (8)")
    parser.add_argument("--repeats", type=int, default=5, help="quadruples per batch (5)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    frames = []
    for name in options.victim or VICTIMS:
        victim = load_victim(name)
        count = options.batch_size * options.batches
        images, labels = subset(*load_data(None, victim), count)
        attacked = build(options.attack, victim, 8 / 255, 0)(images, labels)
        clock = clock_named("wall", victim.device)
        curve = batch_curve(
            victim, images, attacked, clock, batch_size=options.batch_size, repeats=options.repeats
        )
        frames.append(curve)
        print(curve[SHOWN].to_string(index=False, float_format=lambda v: f"{v:.4g}"), flush=True)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        pd.concat(frames, ignore_index=True).to_csv(options.out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
