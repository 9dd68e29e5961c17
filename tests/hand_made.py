"""Rows of frames whose scores are known."""

from __future__ import annotations

import math

import pandas as pd

KINDS = {"clean": "control", "noise": "control", "uniform": "control", "PGD": "accuracy"}
KINDS |= dict.fromkeys(("Slowdown", "DeepSloth", "QueryAttack"), "compute")


def samples(
    attack: str,
    clean: list[float],
    attacked: list[float],
    ceiling: float = 100.0,
    **columns: object,
) -> pd.DataFrame:
    """Rows of one attack; every image is class 0 and predicted so, unless told otherwise."""
    count = len(clean)
    return pd.DataFrame(
        {
            "victim": "toy",
            "family": "cascade",
            "attack": attack,
            "kind": KINDS[attack],
            "threat": "linf",
            "eps": 8 / 255,
            "seed": 0,
            "sample": range(count),
            "label": 0,
            "prediction": 0,
            "clean_prediction": 0,
            "macs": attacked,
            "clean_macs": clean,
            "dense_macs": 80.0,
            "max_macs": ceiling,
            "constant": False,
            "seconds": [2e-3] * count,
            "clean_seconds": [1e-3] * count,
            "batch_size": 1,
            "clock": "wall",
            "joules": math.nan,
            "clean_joules": math.nan,
            "modelled_joules": 3e-9,
            "clean_modelled_joules": 2e-9,
            **columns,
        }
    )
