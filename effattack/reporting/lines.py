"""Series as lines: the clean and the attacked one over each other, and where reading stopped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from effattack.reporting import svg, words
from effattack.reporting.stored import Description
from effattack.reporting.strips import Pair, Shown, Strips
from effattack.results.decisions import from_text

WIDTH, LEFT, PANEL, GAP, TOP = 480.0, 40.0, 84.0, 10.0, 32.0
CHANNELS = 3
"""Channels that are drawn; of more, the first."""
COLUMNS = 220
"""Pieces that a line is drawn in; a longer series shows the lowest and the highest of each."""
HOW = (
    "Lines are the stored series, clean in the colour of the text and attacked above it; the "
    "vertical lines stand where the model stopped reading."
)


def can(domain: Description) -> bool:
    """Channels of numbers."""
    return len(domain["shape"]) == 2


def size(domain: Description) -> float:
    """Bytes of the two lines of every channel that is drawn."""
    channels, length = domain["shape"]
    return 2 * 11.0 * min(channels, CHANNELS) * min(length or 2 * COLUMNS, 2 * COLUMNS)


def show(pairs: Sequence[Pair], domain: Description) -> Strips:
    """One figure per series."""
    channels = len(pairs[0].clean)
    left_out = f"{CHANNELS} of {channels} channels shown" if channels > CHANNELS else ""
    return Strips([[_figure(pair)] for pair in pairs], left_out)


class Stop(NamedTuple):
    """Where a model stopped reading a series of ``length`` samples."""

    who: str
    at: float
    length: int

    def __str__(self) -> str:
        if self.at >= self.length:
            return f"{self.who}: read to the end"
        return f"{self.who}: stopped at {self.at:g} of {self.length}"


def stops(pair: Pair) -> list[Stop]:
    """Where reading stopped, clean and attacked; nothing for models that read it all at once."""
    length = pair.clean.shape[1]
    found = []
    for who, row in (("clean", pair.before), ("attacked", pair.row)):
        share = share_read(row.get("decisions"))
        if share is not None:
            found.append(Stop(who, round(share * length), length))
    return found


def share_read(decisions: str | None) -> float | None:
    """How much was read, by the gate that decides to read on: U units part it into U + 1 pieces.

    Args:
        decisions: as stored, see :mod:`effattack.results.decisions`.
    """
    for name, mask in from_text(decisions or "{}").items():
        if name.rpartition(".")[2] == READING:
            return (1 + float(mask.sum())) / (1 + len(mask))
    return None


READING = "steps"
"""How a gate ends its name whose units are steps through the input."""


def _figure(pair: Pair) -> Shown:
    found = stops(pair)
    drawn = min(len(pair.clean), CHANNELS)
    height = TOP + drawn * (PANEL + GAP) + 20
    marks: list[Markup] = []
    for channel in range(drawn):
        top = TOP + channel * (PANEL + GAP)
        marks += _panel(pair.clean[channel], pair.attacked[channel], top)
    length, bottom = pair.clean.shape[1], TOP + drawn * (PANEL + GAP) - GAP
    for row, stop in enumerate(found):
        marks += _mark(stop, row, bottom)
    for tick in svg.ticks(0, length):
        at = min(_x(tick, length), WIDTH - 10)
        marks.append(svg.text(f"{tick:g}", "tick middle", at, bottom + 16))
    told = "; ".join(map(str, found))
    label = f"series {pair.sample}, clean and attacked" + (f"; {told}" if told else "")
    shares = " → ".join(words.percent(stop.at / stop.length, 0) for stop in found)
    caption = f"share read {shares}" if found else "clean and attacked"
    return Shown(caption, svg.draw(WIDTH, height, label, *marks))


def _x(at: float, length: int) -> float:
    return LEFT + (WIDTH - LEFT - 4) * at / length


def _panel(clean: NDArray[Any], attacked: NDArray[Any], top: float) -> list[Markup]:
    """One channel: its range, and both lines in it."""
    both = np.concatenate([clean, attacked]).astype(float)
    low, high = float(both.min()), float(both.max())
    span = high - low or 1.0

    def y(value: float) -> float:
        return top + PANEL - PANEL * (value - low) / span

    marks = []
    for value in dict.fromkeys((low, high)):
        at = y(value)
        marks.append(svg.element("line", class_="grid", x1=LEFT, x2=WIDTH - 4, y1=at, y2=at))
        marks.append(svg.text(f"{value:.3g}", "tick end", LEFT - 5, at + 4))
    for css, line in (("curve clean", clean), ("curve attacked", attacked)):
        corners = [(round(_x(at, len(line)), 1), y(float(line[at]))) for at in _kept(line)]
        marks.append(svg.path(css, corners))
    return marks


def _kept(line: NDArray[Any]) -> NDArray[np.intp]:
    """The samples that are drawn: all, or the lowest and the highest of each piece, in order."""
    if len(line) <= 2 * COLUMNS:
        return np.arange(len(line))
    edges = np.linspace(0, len(line), COLUMNS + 1).astype(int)
    ends = [
        (start + line[start:stop].argmin(), start + line[start:stop].argmax())
        for start, stop in pairwise(edges)
    ]
    return np.unique(np.array(ends))


def _mark(stop: Stop, row: int, bottom: float) -> list[Markup]:
    at, y = _x(stop.at, stop.length), 10 + 14 * row
    end = at > WIDTH / 2
    told = svg.text(str(stop), f"mark {stop.who}{' end' * end}", at + (-5 if end else 5), y)
    return [svg.vertical(f"stop {stop.who}", at, y - 8, bottom), told]
