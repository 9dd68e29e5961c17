"""From per-sample rows to scores, one row per victim, attack, threat and eps; seeds pooled."""

from __future__ import annotations

import numpy as np
import pandas as pd

from effattack.errors import MeasurementError
from effattack.measure.statistics import Interval, median_ratio, proportion, ratio_of_sums

CELL = ["victim", "attack", "threat", "eps"]
"""What one row of scores is of."""
COLUMNS = [
    "victim",
    "family",
    "attack",
    "kind",
    "threat",
    "eps",
    "samples",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "agreement",
    "agreement_low",
    "agreement_high",
    "macs",
    "clean_macs",
    "dense_macs",
    "max_macs",
    "reachable",
    "macs_ratio",
    "attack_success",
    "attack_success_dense",
    "savings_retained",
    "savings_retained_low",
    "savings_retained_high",
    "slow_and_wrong",
    "knife_edge",
    "constant",
    "latency_ratio",
    "latency_low",
    "latency_high",
    "clock",
    "energy_ratio",
    "modelled_energy_ratio",
]
"""Columns of ``scores.csv``."""


def score_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Scores of every victim, attack, threat and eps, in the order of the samples.

    Raises:
        MeasurementError: if a sample executed more than the declared max, or a constant victim's
            MACs moved: then the victim's declaration is wrong and no score can be trusted.
    """
    check_declarations(samples)
    groups = samples.groupby(CELL, sort=False)
    return pd.DataFrame(
        [{**dict(zip(CELL, key, strict=True)), **_scores(rows)} for key, rows in groups],
        columns=COLUMNS,
    )


def check_declarations(samples: pd.DataFrame) -> None:
    """Refuse samples that contradict what their victim declares."""
    over = samples[samples.macs > samples.max_macs]
    if len(over):
        row = over.iloc[0]
        raise MeasurementError(
            f"{row.victim}: sample {row['sample']} under {row.attack} executed {row.macs:,.0f} "
            f"MACs, above the declared max of {row.max_macs:,.0f}: correct max_macs"
        )
    moved = samples[samples.constant & (samples.macs != samples.clean_macs)]
    if len(moved):
        row = moved.iloc[0]
        raise MeasurementError(
            f"{row.victim} declares constant MACs, but sample {row['sample']} went from "
            f"{row.clean_macs:,.0f} to {row.macs:,.0f} under {row.attack}: set constant=False"
        )


def attack_success(macs: pd.Series, clean: pd.Series, ceiling: pd.Series) -> float:
    """(Σ attacked − Σ clean) / (Σ ceiling − Σ clean); NaN where the ceiling is unknown.

    May be negative. 0 where there was nothing to lose.
    """
    gained, headroom = macs.sum() - clean.sum(), ceiling.sum(skipna=False) - clean.sum()
    if headroom == 0:
        return 0.0 if gained == 0 else float("nan")
    return float(gained / headroom)


def _scores(rows: pd.DataFrame) -> dict[str, object]:
    constant = bool(rows.constant.all())
    success = 0.0 if constant else attack_success(rows.macs, rows.clean_macs, rows.max_macs)
    dense = 0.0 if constant else attack_success(rows.macs, rows.clean_macs, rows.dense_macs)
    retained = Interval(1, 1, 1) if constant else _retained(rows)
    right = _share(rows, rows.prediction == rows.label)
    same = _share(rows, rows.prediction == rows.clean_prediction)
    timed = rows.dropna(subset=["seconds", "clean_seconds"])
    latency = _latency(timed)
    return {
        "family": rows.family.iloc[0],
        "kind": rows.kind.iloc[0],
        "samples": len(rows),
        "accuracy": right.value,
        "accuracy_low": right.low,
        "accuracy_high": right.high,
        "agreement": same.value,
        "agreement_low": same.low,
        "agreement_high": same.high,
        "macs": rows.macs.mean(),
        "clean_macs": rows.clean_macs.mean(),
        "dense_macs": rows.dense_macs.mean(),
        "max_macs": rows.max_macs.mean(),
        "reachable": max(rows.macs.max(), rows.clean_macs.max()),
        "macs_ratio": rows.macs.sum() / rows.clean_macs.sum(),
        "attack_success": success,
        "attack_success_dense": dense,
        "savings_retained": 1 - success,
        "savings_retained_low": retained.low,
        "savings_retained_high": retained.high,
        "slow_and_wrong": _slow_and_wrong(rows),
        "knife_edge": rows.knife_edge.astype(float).mean() if "knife_edge" in rows else 0.0,
        "constant": constant,
        "latency_ratio": latency.value,
        "latency_low": latency.low,
        "latency_high": latency.high,
        "clock": _clock(timed),
        "energy_ratio": _ratio(rows.joules, rows.clean_joules),
        "modelled_energy_ratio": _ratio(rows.modelled_joules, rows.clean_modelled_joules),
    }


def _retained(rows: pd.DataFrame) -> Interval:
    """Bootstrapped over images; the seeds of an image stay together."""
    left, saved = rows.max_macs - rows.macs, rows.max_macs - rows.clean_macs
    return ratio_of_sums(left.groupby(rows["sample"]).sum(), saved.groupby(rows["sample"]).sum())


def _share(rows: pd.DataFrame, holds: pd.Series) -> Interval:
    """Of images; one that holds under some of its seeds adds the share of them."""
    images = holds.groupby(rows["sample"]).mean()
    return proportion(images.sum(), len(images))


def _latency(timed: pd.DataFrame) -> Interval:
    """Over images; the seeds of one are averaged in the logarithm."""
    logs = np.log(timed[["seconds", "clean_seconds"]].astype(float))
    images = np.exp(logs.groupby(timed["sample"]).mean())
    return median_ratio(images.seconds, images.clean_seconds)


def _clock(timed: pd.DataFrame) -> str | None:
    """Which clock, and how many images it timed per call, if not one."""
    if not len(timed):
        return None
    size = timed.batch_size.iloc[0]
    return f"{timed.clock.iloc[0]}{f', batches of {size:.0f}' if size > 1 else ''}"


def _slow_and_wrong(rows: pd.DataFrame) -> float:
    return float(((rows.macs > rows.clean_macs) & (rows.prediction != rows.label)).mean())


def _ratio(attacked: pd.Series, clean: pd.Series) -> float:
    both = attacked.notna() & clean.notna()
    return float(attacked[both].sum() / clean[both].sum()) if both.any() else np.nan
