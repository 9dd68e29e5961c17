"""The two figures of every victim: how its MACs spread over images, and how far each attack got."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from effattack.reporting import plots, words
from effattack.reporting.verdict import (
    KINDS,
    NOT_JUDGED,
    Row,
    Verdict,
    rows_of,
    samples_of,
    series,
    unit_of,
)
from effattack.reporting.words import missing

SERIES = 6
"""Colours for compute attacks; more attacks than that take them again, dotted."""


class Key(NamedTuple):
    """One entry of a legend."""

    css: str
    name: str
    detail: str


class Figures(NamedTuple):
    """What is drawn for one victim."""

    verdict: Verdict
    curves: Markup
    legend: list[Key]
    bars: Markup
    measure: str
    note: str


def colours(scores: pd.DataFrame) -> dict[str, str]:
    """One class for each compute attack, the same in every figure."""
    compute = rows_of(scores[scores["kind"] == "compute"])
    return {
        attack: f"s{index % SERIES}{' again' if index >= SERIES else ''}"
        for index, attack in enumerate(dict.fromkeys(map(series, compute)))
    }


def figures(samples: pd.DataFrame, scores: pd.DataFrame, verdict: Verdict) -> Figures:
    """Both figures of one victim."""
    palette = colours(scores)
    rows = rows_of(scores[scores["victim"].map(str) == verdict.victim])
    own = samples[samples["victim"].map(str) == verdict.victim]
    bars, measure = _bars(rows, verdict, palette)
    costs = own["macs"].dropna().unique()
    if verdict.constant and len(costs) == 1:
        note = f"Constant: every image costs {words.macs(costs[0])} MACs, clean or attacked."
        return Figures(verdict, Markup(""), [], bars, measure, note)
    curves, legend = _curves(own, rows, verdict, palette)
    note = "" if curves else "No per-image MACs were stored."
    return Figures(verdict, curves, legend, bars, measure, note)


def _curves(
    own: pd.DataFrame, rows: list[Row], verdict: Verdict, palette: dict[str, str]
) -> tuple[Markup, list[Key]]:
    chosen = _one_per_attack(rows, verdict)
    curves, legend = [], []
    for css, row in chosen:
        css = palette.get(series(row), css)
        cell = samples_of(row, own)
        values = cell["macs"].dropna().tolist()
        if not values:
            continue
        curves.append(plots.Curve(values, css))
        budget = "" if row["eps"] == 0 else f"{words.at(row)}, "
        mean = words.macs(sum(values) / len(values), like=max(map(unit_of, rows)))
        legend.append(Key(css, series(row), f"{budget}mean {mean}"))
    if not curves:
        return Markup(""), []
    shown, unit = rows[0], max(map(unit_of, rows))
    worst = verdict.worst
    drawn = [key.name for key in legend]
    at = drawn.index(series(worst)) if worst and series(worst) in drawn else 0
    label = f"MACs per image of {verdict.victim}, cumulative: " + "; ".join(
        f"{key.name}, {key.detail}" for key in legend
    )
    lines = [("dense", shown["dense_macs"]), ("max", shown["max_macs"])]
    shade = (0, at) if at and legend[0].name == "clean" else None
    write, tick = partial(words.macs, like=unit), partial(words.macs_tick, like=unit)
    return plots.step_curves(curves, lines, label, write, tick, shade), legend


def _one_per_attack(rows: list[Row], verdict: Verdict) -> list[tuple[str, Row]]:
    """Clean, noise and every compute attack, each at its largest budget, the worst at its own."""
    chosen: dict[str, tuple[str, Row]] = {}
    for name in ("clean", "noise", *[series(row) for row in rows if row["kind"] == "compute"]):
        own = [row for row in rows if series(row) == name]
        if own:
            chosen[name] = (name, max(own, key=lambda row: row["eps"]))
    if verdict.worst:
        chosen[series(verdict.worst)] = ("s0", verdict.worst)
    return list(chosen.values())


def _bars(rows: list[Row], verdict: Verdict, palette: dict[str, str]) -> tuple[Markup, str]:
    if not rows:
        return Markup(""), ""
    by_ratio = all(missing(row["attack_success"]) for row in rows)
    key = "macs_ratio" if by_ratio else "attack_success"
    write = words.ratio if by_ratio else words.percent
    ordered = sorted(rows, key=lambda row: KINDS.index(row["kind"]))
    shown = [row for row in ordered if row["attack"] != "clean"]
    bars, group = [], ""
    for row in shown:
        kind = "judged" if row["kind"] == "compute" else "other"
        heading = {
            "judged": "compute attacks: these give the verdict",
            "other": "for comparison: never counts for the verdict",
        }[kind]
        budget = words.at(row)
        detail = ", ".join(filter(None, [budget, NOT_JUDGED.get(row["kind"])]))
        css = palette.get(series(row), "s0") if kind == "judged" else row["kind"]
        text = write(row[key])
        heading = heading if kind != group else ""
        bars.append(plots.Bar(str(row["attack"]), detail, row[key], text, css, heading))
        group = kind
    measure = "MACs, attacked / clean" if by_ratio else "Attack success"
    label = f"{measure} on {verdict.victim}: " + "; ".join(
        f"{bar.label}, {bar.detail}: {bar.text}" for bar in bars
    )
    axis = words.ratio if by_ratio else partial(words.percent, digits=0)
    return plots.bars(bars, label, 1.0 if by_ratio else 0.0, axis), measure
