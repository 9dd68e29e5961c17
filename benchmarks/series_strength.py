"""Strength on time series: the house attack beside published objectives, noise, gaps and drift.

    python benchmarks/series_strength.py --samples 100 --seeds 0,1,2 --out series_strength

One table per victim: attack success and, in brackets, agreement, under l-inf budgets in units of
the deviation that its domain declares. Every attack that follows gradients takes 50 of them, one
that runs once per exit (PGDMax) 50 for each. Finished cells lie in ``--out``: the same command
resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from tables import markdown

from effattack.runs.executors.workers import Workers
from effattack.runs.sweep import Sweep
from effattack.victim import load_victim

VICTIMS = ("cbf_early_gru", "cbf_cnn_exit", "cbf_transformer_merge")
HOUSE = "Slowdown(steps=50)"
KEPT = "Slowdown(keep_prediction=True, steps=50)"
PUBLISHED = (
    "CascadeAttack(steps=50)",
    "DeepSloth(steps=50)",
    "ILFO(steps=50)",
    "Sponge(steps=50)",
    "PGDAvg(steps=50)",
    "PGDMax(steps=50)",
)
BUDGETS = ("linf:.05sd", "linf:.1sd", "linf:.2sd")


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows: attacks; columns: budgets; cells: attack success (agreement), means over seeds."""
    cells = scores[~scores.attack.isin(["clean", "uniform", "union"])]
    means = cells.groupby(["attack", "eps"], sort=False)[["attack_success", "agreement"]]
    cells = means.mean().reset_index()
    cells["cell"] = [
        f"{success:.3f} ({agreement:.0%})"
        for success, agreement in zip(cells.attack_success, cells.agreement, strict=True)
    ]
    cells["ε"] = [f"ε = {eps:g} sd" for eps in cells.eps]
    grid = cells.pivot(index="attack", columns="ε", values="cell")
    return grid.reindex(cells.attack.unique()).reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description="attack success on time series, by victim")
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seeds", default="0", help="as 0,1,2 (0)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--out", type=Path, default=Path("series_strength"))
    args = parser.parse_args()
    for name in args.victims.split(","):
        attacks = ("gaps", "drift", HOUSE, KEPT, *PUBLISHED)
        seeds = tuple(int(seed) for seed in args.seeds.split(","))
        sweep = Sweep((name,), attacks, BUDGETS, seeds, samples=args.samples, timed=0)
        scores = sweep.run(args.out, Workers(args.workers)).scores()
        scores.to_csv(args.out / f"{load_victim(name).name}.csv", index=False)
        print(f"### `{name}`\n\n{markdown(table(scores))}\n", flush=True)


if __name__ == "__main__":
    main()
