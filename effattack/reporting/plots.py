"""Distributions, bars and the marks in cards and tables: functions from numbers to drawings.

What has two axes is in :mod:`effattack.reporting.axes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

from effattack.reporting import svg
from effattack.reporting.svg import Drawing
from effattack.reporting.words import missing

WIDTH = 480.0
PLOT = (50.0, 36.0, 468.0, 262.0)
"""Left, top, right and bottom of the plotting area of the step curves."""


class Curve(NamedTuple):
    """The distribution of one set of values."""

    values: Sequence[float]
    css: str


class Bar(NamedTuple):
    """One horizontal bar, its label above it, its value in words at its right."""

    label: str
    detail: str
    value: float
    text: str
    css: str
    heading: str = ""
    """A heading above this bar, where a new group of bars begins."""


def _steps(values: Sequence[float], x: Callable[[float], float]) -> list[tuple[float, float]]:
    """Corners (x, share) of an empirical distribution, at most two per half unit of width."""
    position = np.round(np.sort([x(value) for value in values]) * 2) / 2
    at, counts = np.unique(position, return_counts=True)
    corners, share = [], 0.0
    for where, above in zip(at, np.cumsum(counts) / len(position), strict=True):
        corners += [(float(where), share), (float(where), float(above))]
        share = float(above)
    return corners


def step_curves(
    curves: Sequence[Curve],
    lines: Sequence[tuple[str, float]],
    label: str,
    write: Callable[[float], str],
    write_tick: Callable[[float], str],
    shade: tuple[int, int] | None = None,
) -> Drawing:
    """Share of inputs (up) that cost at most so much (right), one step curve per set of values.

    Args:
        curves: drawn in order, the last on top.
        lines: vertical lines, (name, value); NaN is left out.
        label: for screen readers.
        write, write_tick: how a value is written beside a line and on the axis.
        shade: two curves between which the area is shaded; it is the difference of their means.
    """
    left, top, right, bottom = PLOT
    known = sorted(((n, v) for n, v in lines if not missing(v)), key=lambda line: -line[1])
    largest = max([v for curve in curves for v in curve.values] + [v for _, v in known], default=1)
    high = largest * 1.02 or 1.0

    def x(value: float) -> float:
        return left + (right - left) * value / high

    def corners(curve: Curve) -> list[tuple[float, float]]:
        steps = [(left, 0.0), *_steps(curve.values, x), (right, 1.0)]
        return [(at, bottom - (bottom - top) * share) for at, share in steps]

    marks: list[Markup] = []
    for quarter in range(5):
        y = bottom - (bottom - top) * quarter / 4
        marks.append(svg.element("line", class_="grid", x1=left, x2=right, y1=y, y2=y))
        marks.append(svg.text(f"{25 * quarter} %", "tick end", left - 6, y + 4))
    for tick in svg.ticks(0, high):
        marks.append(
            svg.text(write_tick(tick), "tick middle", min(x(tick), right - 8), bottom + 18)
        )
    if shade:
        there, back = corners(curves[shade[0]]), corners(curves[shade[1]])[::-1]
        marks.append(svg.path(f"area {curves[shade[1]].css}", there + back, closed=True))
    for row, (name, value) in enumerate(known):
        y, at = top - 8 - 15 * (len(known) - 1 - row), x(value)
        end = at > (left + right) / 2
        marks.append(svg.vertical(f"rule {name}", at, y - 9, bottom))
        words, shift = f"{name} {write(value)}", -5 if end else 5
        marks.append(svg.text(words, "mark end" if end else "mark", at + shift, y))
    marks += [svg.path(f"curve {curve.css}", corners(curve)) for curve in curves]
    return svg.draw(WIDTH, bottom + 26, label, *marks)


def bars(rows: Sequence[Bar], label: str, base: float, write: Callable[[float], str]) -> Drawing:
    """Horizontal bars that start at ``base``: 0 for attack success, 1 for a ratio."""
    values = [row.value for row in rows if not missing(row.value)]
    low, high = min([base, *values]), max([base + 1, *values])
    left, right, thick = 0.0, WIDTH - 66, 10.0

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    marks, y = [], 0.0
    for row in rows:
        if row.heading:
            y += 22 if y == 0 else 32
            marks.append(svg.text(row.heading, "heading", left, y - 8))
        detail = svg.element("tspan", row.detail, class_="tick", dx="6")
        marks.append(svg.text(escape(svg.clip(row.label)) + detail, "label", left, y + 13))
        slot = y + 19
        marks.append(svg.rect("slot", left, slot, right - left, thick))
        if not missing(row.value) and row.value != base:
            start, stop = sorted((x(base), x(row.value)))
            marks.append(svg.rect(f"bar {row.css}", start, slot, max(stop - start, 1.0), thick))
        if low < base:
            marks.append(svg.vertical("rule base", x(base), slot - 2, slot + thick + 2))
        marks.append(svg.text(row.text, "value end", WIDTH, slot + 9.5))
        y += 36
    for tick in svg.ticks(low, high, 4):
        at = x(tick)
        anchor = "" if at < 16 else "end" if at > right - 16 else "middle"
        marks.append(svg.vertical("rule base", min(max(at, 0.5), right - 0.5), y - 1, y + 3))
        marks.append(svg.text(write(tick), f"tick {anchor}".strip(), at, y + 17))
    return svg.draw(WIDTH, y + 24, label, *marks)


def track(
    clean: float,
    attacked: float,
    dense: float,
    most: float,
    label: str,
    certified: float = math.nan,
) -> Drawing:
    """Where the MACs stand: spent when clean, taken back by the attack, still saved; dense ticked.

    Without a known ``most`` the bar ends at the largest of the others. Of what is still saved, the
    last ``certified`` MACs are marked: no attack takes them.
    """
    width, top, height = 300.0, 8.0, 14.0
    end = max(value for value in (clean, attacked, dense, most) if not missing(value)) or 1.0

    def x(value: float) -> float:
        return width * value / end

    marks = [
        svg.rect("saved", 0.5, top + 0.5, width - 1, height - 1),
        svg.rect("spent", 0.0, top, x(clean), height),
        svg.rect("taken", x(clean), top, x(attacked) - x(clean), height),
    ]
    if not missing(certified) and certified > 0:
        marks.append(svg.rect("certified", x(end - certified), top, x(certified), height))
    if attacked < clean:
        marks.append(svg.vertical("below", x(attacked), top, top + height))
    if not missing(dense):
        at = min(max(x(dense), 1.0), width - 1)
        marks.append(svg.vertical("dense", at, 2.0, top + height + 6))
    return svg.draw(width, top + height + 8, label, *marks, css="track")


def interval(
    low: float, middle: float, high: float, domain: tuple[float, float], label: str
) -> Drawing:
    """A ratio with its interval on a logarithmic axis around 1, for a cell of a table."""
    width, y = 200.0, 9.0
    start, stop = math.log(domain[0]), math.log(domain[1])

    def x(value: float) -> float:
        return 4 + (width - 8) * (math.log(value) - start) / (stop - start)

    whisker = svg.element("line", class_="whisker", x1=x(low), x2=x(high), y1=y, y2=y)
    dot = svg.element("circle", class_="dot", cx=x(middle), cy=y, r=3.5)
    return svg.draw(
        width, 18, label, svg.vertical("rule base", x(1), 0, 18), whisker, dot, css="interval"
    )
