"""Figures with two axes: security curves, scatters, and paired bars of shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from effattack.reporting import svg
from effattack.reporting.svg import Drawing
from effattack.reporting.words import missing, percent

WIDTH, BOTTOM = 480.0, 236.0
LEFT, TOP, RIGHT = 58.0, 30.0, 466.0


class Series(NamedTuple):
    """Points of one colour, joined by a line unless they are a single one."""

    css: str
    points: Sequence[tuple[float, float]]
    open_ends: bool = False
    """The first point is drawn hollow: where the victim stood before."""


class Axis(NamedTuple):
    """What one axis shows: its range, its ticks in words, and its name."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    name: str

    @classmethod
    def upto(cls, high: float, name: str, write: Callable[[float], str]) -> Axis:
        """From 0 to a little above ``high``, with round ticks."""
        high = 1.04 * high or 1.0
        return cls(0.0, high, [(tick, write(tick)) for tick in svg.ticks(0, high)], name)


def plot(
    series: Sequence[Series],
    across: Axis,
    up: Axis,
    label: str,
    rules: Sequence[tuple[str, float]] = (),
) -> Drawing:
    """Lines and points over a grid.

    Args:
        series: drawn in order, the last on top; a point with NaN is left out.
        across, up: the axes.
        label: for screen readers.
        rules: horizontal lines, (name, value); NaN is left out.
    """

    def x(value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - across.low) / (across.high - across.low)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - up.low) / (up.high - up.low)

    marks = [svg.text(up.name, "tick", 0, 12)]
    for value, words in up.ticks:
        at = y(value)
        marks.append(svg.element("line", class_="grid", x1=LEFT, x2=RIGHT, y1=at, y2=at))
        marks.append(svg.text(words, "tick end", LEFT - 6, at + 4))
    for value, words in across.ticks:
        marks.append(svg.text(words, "tick middle", x(value), BOTTOM + 16))
    marks.append(svg.text(across.name, "tick end", RIGHT, BOTTOM + 33))
    for name, value in sorted(((n, v) for n, v in rules if not missing(v)), key=lambda r: r[1]):
        at = y(value)
        marks.append(svg.element("line", class_=f"rule {name}", x1=LEFT, x2=RIGHT, y1=at, y2=at))
        marks.append(svg.text(name, "mark end", RIGHT, at - 4 if name == "max" else at + 12))
    for one in series:
        known = [(x(a), y(b)) for a, b in one.points if not (missing(a) or missing(b))]
        if len(known) > 1:
            marks.append(svg.path(f"curve {one.css}", known))
        for index, (a, b) in enumerate(known):
            shape = "ring" if one.open_ends and index == 0 else "dot"
            marks.append(svg.element("circle", class_=f"{shape} {one.css}", cx=a, cy=b, r=3.5))
    return svg.draw(WIDTH, BOTTOM + 38, label, *marks)


class Pair(NamedTuple):
    """A share on clean and on attacked inputs."""

    name: str
    clean: float
    attacked: float


def paired_bars(pairs: Sequence[Pair], css: str, label: str) -> Drawing:
    """One row per pair: clean above attacked, from 0 to 100 %, each with its share in words."""
    left, right, pitch = 170.0, 440.0, 35.0
    marks: list[Markup] = []
    for row, pair in enumerate(pairs):
        top = 4 + row * pitch
        marks.append(svg.text(svg.clip(pair.name), "end", left - 8, top + 17))
        for shift, kind, share in ((0, "clean", pair.clean), (14, css, pair.attacked)):
            width = (right - left) * share
            marks.append(svg.rect("slot", left, top + shift, right - left, 10))
            marks.append(svg.rect(f"bar {kind}", left, top + shift, width, 10))
            marks.append(svg.text(percent(share, 0), "tick end small", WIDTH, top + shift + 9))
    return svg.draw(WIDTH, 8 + pitch * len(pairs), label, *marks)
