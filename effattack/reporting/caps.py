"""Figures of a generator: what a smaller cap would have let through, clean and attacked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import log2

import pandas as pd

from effattack.reporting import axes, words
from effattack.reporting.curves import PERCENTS, style
from effattack.reporting.figure import Figure, Key
from effattack.reporting.verdict import Row, Verdict, rows_of, same_cell, series
from effattack.results.cap_sweep import PASSES, cap_sweep


def cap_curves(
    own: pd.DataFrame, rows: Sequence[Row], verdict: Verdict, palette: dict[str, str]
) -> list[Figure]:
    """Passes and cap-hit rate against the cap, up to the victim's own; nothing where no victim
    tells whether its cap ended a text.

    Args:
        own: its per-sample rows.
        rows: of its scores, the attacks to draw.
    """
    sweep = rows_of(cap_sweep(own)) if "capped" in own else []
    if not sweep:
        return []
    caps = sorted({row["cap"] for row in sweep})
    across = axes.Axis(0.0, 1.03 * log2(caps[-1]) or 1.0, _ticks(caps), "cap, in tokens")
    highest = max(row[PASSES] for row in sweep)
    up = axes.Axis.upto(
        highest, f"passes per {verdict.noun.one}, mean", partial(words.macs_tick, like=highest)
    )
    share = axes.Axis(0.0, 1.0, PERCENTS, "ended by the cap")
    found = []
    for slug, key, axis, caption in (
        ("cap_passes", PASSES, up, "Passes under smaller caps"),
        ("cap_hits", "cap_hit_rate", share, f"Share of {verdict.noun.many} that a cap ends"),
    ):
        lines = [(row, _points(row, sweep, key)) for row in rows]
        write = words.work if key == PASSES else words.percent
        told = [f"{row['attack']} {write(points[-1][1])}" for row, points in lines]
        label = f"{caption}, {verdict.victim}; at {caps[-1]}: {'; '.join(told)}"
        drawn = [axes.Series(_css(row, palette), points) for row, points in lines]
        legend = [Key(_css(row, palette), series(row)) for row, _ in lines]
        found.append(Figure(slug, caption, axes.plot(drawn, across, axis, label), legend))
    return found


def _points(row: Row, sweep: Sequence[Row], key: str) -> list[tuple[float, float]]:
    return [(log2(one["cap"]), one[key]) for one in sweep if same_cell(one, row)]


def _ticks(caps: Sequence[int]) -> list[tuple[float, str]]:
    """The last is the victim's own; a power of two just below it has no room."""
    apart = [cap for cap in caps[:-1] if caps[-1] / cap > 1.4]
    return [(log2(cap), str(cap)) for cap in [*apart, caps[-1]]]


def _css(row: Row, palette: dict[str, str]) -> str:
    return "clean" if row["attack"] == "clean" else style(row, palette)
