"""The figures of one victim: how its work spreads over inputs, and how far each attack got."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pandas as pd

from effattack.reporting import plots, words, work
from effattack.reporting.caps import cap_curves
from effattack.reporting.curves import scatter, security_curves
from effattack.reporting.figure import Figure, Key, colours
from effattack.reporting.gates import gate_bars
from effattack.reporting.stages import payers, stage_bars
from effattack.reporting.verdict import (
    KINDS,
    Row,
    Verdict,
    rows_of,
    samples_of,
    series,
    tag,
)
from effattack.reporting.words import missing
from effattack.results.currency import currency_of
from effattack.results.union import UNION


class Figures(NamedTuple):
    """What is drawn for one victim."""

    verdict: Verdict
    figures: list[Figure]
    note: str
    """Why the distribution is missing."""


def figures(samples: pd.DataFrame, scores: pd.DataFrame, verdict: Verdict) -> Figures:
    """All figures of one victim."""
    palette = colours(scores)
    rows = rows_of(scores[scores["victim"].map(str) == verdict.victim])
    own = samples[samples["victim"].map(str) == verdict.victim]
    chosen = _one_per_attack(rows, verdict)
    bars = [_bars(chosen, verdict, palette)]
    costs = own["macs"].dropna().unique()
    if verdict.constant and len(costs) == 1:
        cost = words.macs(costs[0])
        note = f"Constant: every {verdict.noun.one} costs {cost} MACs, clean or attacked."
        return Figures(verdict, bars, note)
    spread = _distribution(own, chosen, verdict, palette)
    note = "" if spread else f"No per-{verdict.noun.one} {work.unit_in(rows)} were stored."
    drawn = [spread] if spread else []
    drawn += bars + security_curves(rows, verdict, palette) + scatter(chosen, verdict, palette)
    drawn += cap_curves(own, [row for row in chosen if row["kind"] != UNION], verdict, palette)
    drawn += stage_bars(own, verdict) + payers(own, verdict, palette)
    drawn += gate_bars(own, verdict, palette)
    return Figures(verdict, drawn, note)


def _distribution(
    own: pd.DataFrame, rows: list[Row], verdict: Verdict, palette: dict[str, str]
) -> Figure | None:
    curves, legend, drawn = [], [], []
    count, unit = currency_of(rows[0]), work.unit_in(rows)
    like = max(map(work.like_of, rows))
    write = work.writer(rows[0], like)
    if count not in own:
        return None
    shown = [row for row in rows if row["attack"] in ("clean", "noise")]
    for row in shown + [row for row in rows if row["kind"] == "compute"]:
        css = palette.get(series(row), str(row["attack"]))
        values = samples_of(row, own)[count].dropna().tolist()
        if not values:
            continue
        curves.append(plots.Curve(values, css))
        budget = "" if row["eps"] == 0 else f"{words.at(row)}, "
        mean = write(sum(values) / len(values))
        legend.append(Key(css, str(row["attack"]), f"{budget}mean {mean}"))
        drawn.append(series(row))
    if not curves:
        return None
    worst = verdict.attack
    at = drawn.index(series(worst)) if worst and series(worst) in drawn else 0
    label = (
        f"{work.capital(unit)} per {verdict.noun.one} of {verdict.victim}, cumulative: "
        + "; ".join(f"{key.name}, {key.detail}" for key in legend)
    )
    shade = (0, at) if at and legend[0].name == "clean" else None
    tick = partial(words.macs_tick, like=like)
    drawing = plots.step_curves(curves, work.rules(work.roomiest(rows)), label, write, tick, shade)
    caption = f"Share of {verdict.noun.many} that cost at most so many {unit}"
    return Figure(count, caption, drawing, legend)


def _one_per_attack(rows: list[Row], verdict: Verdict) -> list[Row]:
    """Every attack and the union at their largest budget, the worst at their own."""
    chosen: dict[str, Row] = {}
    for row in rows:
        if row["eps"] >= chosen.get(series(row), row)["eps"]:
            chosen[series(row)] = row
    for row in filter(None, (verdict.worst, verdict.attack)):
        chosen[series(row)] = row
    return list(chosen.values())


def _counts(row: Row) -> bool:
    return bool(row.get("inside", row["kind"] == "compute"))


def _bars(rows: list[Row], verdict: Verdict, palette: dict[str, str]) -> Figure:
    by_ratio = all(missing(row["attack_success"]) for row in rows)
    key = "equals_n_requests" if by_ratio else "attack_success"
    write = words.ratio if by_ratio else words.percent
    ordered = sorted(rows, key=lambda row: (not _counts(row), KINDS.index(row["kind"])))
    shown = [row for row in ordered if row["attack"] != "clean"]
    bars, group = [], ""
    for row in shown:
        kind = "judged" if _counts(row) else "other"
        heading = {
            "judged": "inside the budget: these give the verdict",
            "other": "outside the budget: never counts for the verdict",
        }[kind]
        budget = words.at(row)
        detail = ", ".join(filter(None, [budget, tag(row)]))
        css = palette.get(series(row), "s0" if row["kind"] == UNION else row["kind"])
        text = write(row[key])
        heading = heading if kind != group else ""
        bars.append(plots.Bar(str(row["attack"]), detail, row[key], text, css, heading))
        group = kind
    ratio = f"{work.capital(work.unit_in(rows))}, attacked / clean"
    measure = ratio if by_ratio else "Attack success"
    label = f"{measure} on {verdict.victim}: " + "; ".join(
        f"{bar.label}, {bar.detail}: {bar.text}" for bar in bars
    )
    axis = words.ratio if by_ratio else partial(words.percent, digits=0)
    drawing = plots.bars(bars, label, 1.0 if by_ratio else 0.0, axis)
    return Figure("attacks", f"{measure} per attack", drawing, [])
