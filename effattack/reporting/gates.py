"""Where the tokens and exits went: what each gate computed, clean and attacked."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from effattack.reporting import axes, svg, words
from effattack.reporting.figure import Figure, Key
from effattack.reporting.verdict import Verdict, samples_of, series
from effattack.results.decisions import from_text

SEQUENTIAL = ("early exit", "cascade")
"""Families whose gates come one behind the other: the depth of an input says it all."""
ROOM = 24
"""Letters of a name on a phone."""


def gate_bars(own: pd.DataFrame, verdict: Verdict, palette: dict[str, str]) -> list[Figure]:
    """Shares on clean inputs and under the attack that got furthest; nothing without gates.

    Where gates come one behind the other: how many inputs stopped at each. Elsewhere: the share of
    its units that each gate computed.
    """
    row = verdict.attack if verdict.worst else None
    units = _units(own)
    if row is None or not units:
        return []
    pair = own[own["attack"] == "clean"], samples_of(row, own)
    clean, attacked = (np.stack(rows["opened"].tolist()) for rows in pair)
    single = set(units.values()) == {1}
    if single and verdict.family in SEQUENTIAL:
        slug, caption = "stops", f"Share of {verdict.noun.many} that stopped there"
        names = [*_places([*units]), "ran to the end"]
        share = partial(_stops, gates=len(units))
    else:
        slug, caption = "gates", "Share of units that each gate computed"
        names = [svg.clip(gate, 26) for gate in units]
        share = partial(_computed, units=list(units.values()))
    pairs = [
        axes.Pair(*values) for values in zip(names, share(clean), share(attacked), strict=True)
    ]
    label = f"{caption}, {verdict.victim}: " + "; ".join(
        f"{pair.name}: clean {pair.clean:.0%}, attacked {pair.attacked:.0%}" for pair in pairs
    )
    css = palette.get(series(row), "s0")
    legend = [Key("clean", "clean"), Key(css, series(row), words.at(row))]
    return [Figure(slug, caption, axes.paired_bars(pairs, css, label), legend)]


def _units(own: pd.DataFrame) -> dict[str, int]:
    """Gate name -> how many units it has, from the first decisions that were stored."""
    if "decisions" not in own or own["decisions"].dropna().empty:
        return {}
    first = from_text(own["decisions"].dropna().iloc[0])
    return {gate: len(mask) for gate, mask in first.items()}


def _places(gates: list[str]) -> list[str]:
    """Where inputs stopped; by the names of gates alone where a phone has no room for more."""
    names = [f"stopped at {gate}" for gate in gates]
    return names if max(map(len, names)) <= ROOM else [svg.clip(gate, ROOM) for gate in gates]


def _stops(opened: np.ndarray, gates: int) -> list[float]:
    depth = np.bincount(opened.sum(1), minlength=gates + 1)
    return [float(share) for share in depth / len(opened)]


def _computed(opened: np.ndarray, units: list[int]) -> list[float]:
    return [float(share) for share in opened.mean(0) / np.array(units)]
