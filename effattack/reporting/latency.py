"""The latency table: what was timed, and what its interval allows one to say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from effattack.reporting import plots, words, work
from effattack.reporting.meta import Meta, section
from effattack.reporting.svg import Drawing
from effattack.reporting.verdict import Row, rows_of
from effattack.reporting.words import missing
from effattack.results.unmeasured import no_latency


class Timing(NamedTuple):
    """One row of the latency table."""

    victim: str
    attack: str
    work: str
    """Attacked over clean, in the count that judges."""
    work_value: float
    latency: str
    """Median over images; a dash where its interval is too wide."""
    latency_value: float | str
    interval: str
    low: float
    mean: str
    """Ratio of the mean latencies."""
    mean_value: float
    p95: str
    """95th percentile over images."""
    p95_value: float
    clock: str
    plot: Drawing | None
    """The interval; None where it has no bounds."""
    verdict: str
    css: str


def timings(scores: pd.DataFrame, meta: Meta) -> list[Timing]:
    """Every timed row."""
    timed = [row for row in rows_of(scores) if not missing(row["latency_mean_ratio"])]
    ends = [row[key] for row in timed for key in ("latency_low", "latency_high")]
    ends = [end for end in ends if not missing(end) and end > 0]
    domain = (min([0.9, *ends]) / 1.03, max([1.12, *ends]) * 1.03)
    table = []
    for row in timed:
        low, middle, high = (row[f"latency_{key}"] for key in ("low", "ratio", "high"))
        said, css = _said(row, fired(str(row["victim"]), meta))
        spread = words.interval(low, high)
        label = f"latency {words.ratio(middle)}, interval {spread}"
        marks = (low, middle, high)
        bounded = not any(map(missing, marks)) and min(marks) > 0 and math.isfinite(high)
        table.append(
            Timing(
                victim=str(row["victim"]),
                attack=str(row["attack"]),
                work=work.told(row).ratio,
                work_value=row["equals_n_requests"],
                latency=words.ratio(middle),
                latency_value="" if missing(middle) else middle,
                interval=spread,
                low=low,
                mean=words.ratio(row["latency_mean_ratio"]),
                mean_value=row["latency_mean_ratio"],
                p95=words.ratio(row["latency_p95_ratio"]),
                p95_value=row["latency_p95_ratio"],
                clock="clock not named" if missing(row["clock"]) else str(row["clock"]),
                plot=plots.interval(low, middle, high, domain, label) if bounded else None,
                verdict=said,
                css=css,
            )
        )
    return table


def fired(victim: str, meta: Meta) -> bool:
    """Whether the clock saw a difference between clean and clean; then no verdict is given."""
    return bool((section(meta, "latency").get(victim) or {}).get("fired"))


def _said(row: Row, alarm: bool) -> tuple[str, str]:
    """Judged by the bounds as they are printed."""
    if alarm:
        return "no verdict: A/A fired", "void"
    if missing(row["latency_ratio"]):
        return f"not measured: {no_latency(row).why}", "void"
    low, high = (round(row[key], 2) for key in ("latency_low", "latency_high"))
    if missing(low) or missing(high):
        return "no interval, no verdict", "void"
    if low > 1:
        return "slower", "slower"
    if high < 1:
        return "faster", "faster"
    return "not significant on this device", "void"


def clock_checks(meta: Meta) -> list[str]:
    """The A/A comparison of each victim, clean against clean, in words."""
    lines = []
    for victim, aa in section(meta, "latency").items():
        if not isinstance(aa, Mapping):
            continue
        spread = words.interval(aa.get("aa_low", math.nan), aa.get("aa_high", math.nan))
        said = "fired: no latency verdict for this victim" if aa.get("fired") else "quiet"
        lines.append(f"{victim}: ratio {spread}, {said}")
    return lines
