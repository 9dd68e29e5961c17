"""How long a replay takes beside the full run that kept its inputs: both in one process.

    python benchmarks/replay.py digits_cnn_early_exit digits_tinysaver_cascade

Processor seconds, so that neighbours on the machine count little: the full run is that of
``effattack run --victim NAME`` (200 inputs, the default attacks, controls, timing), the replay that
of ``effattack run --victim NAME --replay DIR/corpus``, from the victim's name to its scores.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from tables import markdown

from effattack.cells.by_name import fresh
from effattack.inputs.corpus import read_corpora
from effattack.results.evaluation import Evaluation
from effattack.runs.choosing import chosen
from effattack.runs.replay import replay
from effattack.runs.sweep import Sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("victims", nargs="+", metavar="NAME")
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.victims:
        fresh(name)  # what is imported once counts for neither
    rows = [row(name, options.samples) for name in options.victims]
    print(markdown(pd.DataFrame(rows)))


def row(name: str, samples: int) -> dict[str, Any]:
    """Both runs of a victim."""
    with TemporaryDirectory() as out:
        full, long = timed(lambda: Sweep(victims=(name,), samples=samples).run(out))
        corpora = Path(out) / "corpus"
        again, short = timed(lambda: replayed(name, corpora))
        size = sum(file.stat().st_size for file in corpora.iterdir())
    return {
        "victim": f"`{name}`",
        "full run, s": f"{long:.1f}",
        "replay, s": f"{short:.1f}",
        "share": f"{short / long:.1%}",
        "corpus": f"{size / 1e3:.0f} kB",
        "verdict, full": f"{retained(full):.1%}",
        "replayed": f"{retained(again):.1%}",
    }


def replayed(name: str, corpora: Path) -> Evaluation:
    victim = fresh(name)
    found = replay(victim, chosen(victim, read_corpora(corpora)))
    found.scores()
    return found


def retained(evaluation: Evaluation) -> float:
    """Savings retained under the union."""
    table = evaluation.scores()
    return float(table[table.kind == "union"].savings_retained.min())


def timed(run: Callable[[], Evaluation]) -> tuple[Evaluation, float]:
    started = time.process_time()
    found = run()
    found.scores()
    return found, time.process_time() - started


if __name__ == "__main__":
    main()
