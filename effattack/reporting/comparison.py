"""Several victims side by side: before and after a defence, two versions, victim against victim.

Savings retained are compared with those of the first victim. The interval of a difference joins
the two intervals as if they came from different inputs (Zou and Donner, Statistics in Medicine 27,
2008), so it is wider than it need be where the inputs are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot
from typing import NamedTuple

from effattack.reporting import axes, words
from effattack.reporting.curves import PERCENTS
from effattack.reporting.figure import SERIES, Figure, Key
from effattack.reporting.nouns import Noun
from effattack.reporting.verdict import Verdict
from effattack.reporting.words import missing
from effattack.results.currency import currency_of, unit, work_of


class Compared(NamedTuple):
    """One victim against the first."""

    verdict: Verdict
    change: str
    said: str
    css: str


def compared(found: Sequence[Verdict]) -> list[Compared]:
    """Every victim beside the change of its savings retained against the first."""
    lines = []
    for verdict in found:
        if verdict is found[0]:
            lines.append(Compared(verdict, words.MISSING, "the reference", "void"))
            continue
        change, low, high = difference(verdict, found[0])
        if missing(low) or missing(high):
            lines.append(Compared(verdict, words.points(change), "no interval", "void"))
            continue
        spread = f"{words.points(change)} ({words.points(low)} to {words.points(high)})"
        dearer = _clean_cost(verdict, found[0])
        said, css = ("keeps more", "passed") if low > 0 else ("keeps less", "failed")
        if low <= 0 <= high:
            said, css = "inside the noise", "void"
        lines.append(Compared(verdict, spread, said + dearer, css))
    return lines


def _clean_cost(one: Verdict, reference: Verdict) -> str:
    """What clean inputs cost beside the reference's: savings that were given up are not kept."""
    if one.clean is None or reference.clean is None:
        return ""
    if currency_of(one.clean) != currency_of(reference.clean):
        return ""
    ratio = work_of(one.clean).clean / work_of(reference.clean).clean
    return "" if abs(ratio - 1) < 0.005 else f"; clean {unit(one.clean)} {words.ratio(ratio)}"


def difference(one: Verdict, reference: Verdict) -> tuple[float, float, float]:
    """Savings retained of one victim minus those of another, with its interval."""
    (low, high), (ref_low, ref_high) = _bounds(one), _bounds(reference)
    change = one.savings - reference.savings
    below = hypot(one.savings - low, ref_high - reference.savings)
    above = hypot(high - one.savings, reference.savings - ref_low)
    return change, change - below, change + above


def _bounds(verdict: Verdict) -> tuple[float, float]:
    row = verdict.worst
    if row is None:
        return verdict.savings, verdict.savings
    return row["savings_retained_low"], row["savings_retained_high"]


def scatter(found: Sequence[Verdict], noun: Noun) -> Figure | None:
    """Accuracy over cost of all victims, each from clean to its worst attack."""
    drawn, legend, largest = [], [], 1.0
    for index, verdict in enumerate(found):
        clean, row = verdict.clean, verdict.shown
        if clean is None or row is None or missing(row["dense_macs"]):
            continue
        css = f"s{index % SERIES}{' again' if index >= SERIES else ''}"
        points = [(one["macs"] / one["dense_macs"], one["accuracy"]) for one in (clean, row)]
        drawn.append(axes.Series(css, points, open_ends=True))
        largest = max(largest, *(across for across, _ in points))
        legend.append(Key(css, verdict.victim, _moved(points)))
    if not drawn:
        return None
    name = f"MACs per {noun.one}, mean, as a multiple of dense"
    across = axes.Axis.upto(largest, name, "×{:g}".format)
    up = axes.Axis(0.0, 1.0, PERCENTS, "accuracy against the label")
    label = "Accuracy over cost: " + "; ".join(f"{key.name}: {key.detail}" for key in legend)
    caption = "Accuracy over cost: from clean (ring) to the worst attack"
    return Figure("comparison", caption, axes.plot(drawn, across, up, label), legend)


def _moved(points: Sequence[tuple[float, float]]) -> str:
    written = [f"{words.ratio(cost)} at {words.percent(share, 0)}" for cost, share in points]
    return " → ".join(dict.fromkeys(written))
