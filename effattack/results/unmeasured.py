"""Why a score is empty, in words: the same ones in tables, reports, limits and summaries."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

WIDEST = 1.5
"""The widest interval of a latency ratio, upper over lower bound, that is a measurement."""
NOTHING_SAVED = "nothing was saved on clean images, so nothing can be retained"
UNKNOWN_MAX = "its max MACs are not known"
NOT_TIMED = "not timed"


def no_savings(row: Mapping[str, Any]) -> str:
    """Why a row of scores has no savings retained."""
    return UNKNOWN_MAX if isnan(row["max_macs"]) else NOTHING_SAVED


def no_latency(row: Mapping[str, Any]) -> str:
    """Why a row of scores has no latency ratio."""
    low, high = row["latency_low"], row["latency_high"]
    if isnan(low):
        return NOT_TIMED
    return f"its interval, {low:.2f} to {high:.2f}, is wider than a factor of {WIDEST:g}"
