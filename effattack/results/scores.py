"""From per-sample rows to scores, one row per victim, attack, threat and eps; seeds pooled.

Below them stand the unions, one row per victim and asked budget: see :mod:`.union`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from effattack.errors import MeasurementError
from effattack.measure.statistics import Interval, median_ratio, proportion
from effattack.results.resampling import attack_success, savings
from effattack.results.union import CELL, UNION, with_unions
from effattack.results.unmeasured import WIDEST

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
    "inside",
    "found_by",
    "latency_ratio",
    "latency_low",
    "latency_high",
    "latency_mean_ratio",
    "latency_p95_ratio",
    "clock",
    "energy_ratio",
    "modelled_energy_ratio",
]
"""Columns of ``scores.csv``."""


def score_table(samples: pd.DataFrame) -> pd.DataFrame:
    """Scores of every victim, attack, threat and eps, in the order of the samples; then the unions.

    Raises:
        MeasurementError: if a sample executed more than the declared max, or a constant victim's
            MACs moved: then the victim's declaration is wrong and no score can be trusted.
    """
    check_declarations(samples)
    groups = with_unions(samples).groupby(CELL, sort=False)
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


def measured(latency: Interval) -> Interval:
    """The interval without its value where it is too wide to be a measurement."""
    return latency._replace(value=np.nan) if latency.high / latency.low > WIDEST else latency


def _scores(rows: pd.DataFrame) -> dict[str, object]:
    constant = bool(rows.constant.all())
    work = rows.groupby("sample")[["macs", "clean_macs", "max_macs", "dense_macs"]].mean()
    retained = Interval(1, 1, 1) if constant else savings(work.macs, work.clean_macs, work.max_macs)
    if rows.kind.iloc[0] == UNION:  # it never costs less than the clean input
        retained = retained._replace(high=float(np.minimum(1, retained.high)))
    right, same = _share(rows, rows.right), _share(rows, rows.same)
    timed = rows.dropna(subset=["seconds", "clean_seconds"])
    seconds = _seconds(timed)
    latency = measured(median_ratio(seconds.seconds, seconds.clean_seconds))
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
        "attack_success": 0.0 if constant else _success(work, "max_macs"),
        "attack_success_dense": 0.0 if constant else _success(work, "dense_macs"),
        "savings_retained": retained.value,
        "savings_retained_low": retained.low,
        "savings_retained_high": retained.high,
        "slow_and_wrong": float(rows.slow_and_wrong.mean()),
        "knife_edge": rows.knife_edge.astype(float).mean() if "knife_edge" in rows else 0.0,
        "constant": constant,
        "inside": bool(rows.inside.all()),
        "found_by": rows.found_by.iloc[0],
        "latency_ratio": latency.value,
        "latency_low": latency.low,
        "latency_high": latency.high,
        "latency_mean_ratio": _ratio(seconds.seconds, seconds.clean_seconds),
        "latency_p95_ratio": float((seconds.seconds / seconds.clean_seconds).quantile(0.95)),
        "clock": _clock(timed),
        "energy_ratio": _ratio(rows.joules, rows.clean_joules),
        "modelled_energy_ratio": _ratio(rows.modelled_joules, rows.clean_modelled_joules),
    }


def _success(work: pd.DataFrame, ceiling: str) -> float:
    return float(attack_success(work[["macs", "clean_macs", ceiling]].sum(skipna=False).to_numpy()))


def _share(rows: pd.DataFrame, holds: pd.Series) -> Interval:
    """Of images; one that holds under some of its seeds adds the share of them."""
    images = holds.groupby(rows["sample"]).mean()
    return proportion(images.sum(), len(images))


def _seconds(timed: pd.DataFrame) -> pd.DataFrame:
    """Of each image, attacked and clean; the seeds of one are averaged in the logarithm."""
    logs = np.log(timed[["seconds", "clean_seconds"]].astype(float))
    return np.exp(logs.groupby(timed["sample"]).mean())


def _clock(timed: pd.DataFrame) -> str | None:
    """Which clock, and how many images it timed per call, if not one."""
    if not len(timed):
        return None
    size = timed.batch_size.iloc[0]
    return f"{timed.clock.iloc[0]}{f', batches of {size:.0f}' if size > 1 else ''}"


def _ratio(attacked: pd.Series, clean: pd.Series) -> float:
    both = attacked.notna() & clean.notna()
    return float(attacked[both].sum() / clean[both].sum()) if both.any() else np.nan
