"""``effattack inputs``: inputs made after the few that a user has."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "generate inputs after the few that you have, and say how far they are from these"
EXAMPLES = """examples:
  effattack inputs --like mine.npz --count 200
  effattack inputs --like sentences.jsonl --count 500 --seed 1 --out more.jsonl
"""


def arguments(inputs: argparse.ArgumentParser) -> None:
    inputs.add_argument(
        "--like",
        required=True,
        type=Path,
        metavar="PATH",
        help="to imitate: .npz, .csv, .ts, .jsonl, or a folder of images by class",
    )
    inputs.add_argument("--count", type=int, default=200, metavar="N", help="(200)")
    inputs.add_argument("--seed", type=int, default=0, help="(0)")
    inputs.add_argument(
        "--out", type=Path, metavar="PATH", help="of the same kind (NAME_generated beside it)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.errors import expect_seed
    from effattack.inputs.imitating import imitate

    expect_seed(options.seed)
    made = imitate(options.like, options.count, options.seed, options.out)
    found = made.fidelity
    rows = {
        f"mean of {made.measure}": found.mean,
        f"spread of {made.measure}": found.spread,
        "distance to the nearest": found.nearest,
    }
    console.print(f"{'':34}{'given':>12}{'generated':>12}", **PLAIN)
    for name, (given, generated) in rows.items():
        console.print(f"{name:34}{given:12.4g}{generated:12.4g}", **PLAIN)
    console.print(f"{made.out} says of itself, and with every score: {made.mark}", **PLAIN)
    return 0
