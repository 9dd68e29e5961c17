"""Where the work went among stages: in the mean, in each example, and who paid for which.

Of a pipeline they are its models; of a victim that pays for one modality after the other, these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from effattack.reporting import axes, svg, words
from effattack.reporting.figure import Figure, Key
from effattack.reporting.strips import Pair, Shown
from effattack.reporting.svg import Drawing
from effattack.reporting.verdict import Row, Verdict, samples_of, series

WIDTH, RIGHT = 480.0, 414.0
THICK, PITCH = 20.0, 46.0
TONES = 5
"""Of the stages, from dark to light; later ones have the last."""
HOW = "Bars are what an input paid for, stage by stage, of the most MACs that one can take."


class Stage(NamedTuple):
    """One stage, of an input or means over inputs, in MACs."""

    name: str
    clean: float
    attacked: float


def stage_bars(own: pd.DataFrame, verdict: Verdict) -> list[Figure]:
    """Two bars, parted by stages, under the attack that got furthest; nothing of victims that do
    not tell their stages, or that nobody attacked.

    Args:
        own: its per-sample rows.
        verdict: on it.
    """
    row = verdict.attack if verdict.worst else None
    if row is None or not (stages := _paired(*(table.mean() for table in _told(own, row)))):
        return []
    like = max(_totals(stages))
    legend = [
        Key(_css(at), stage.name, _moved(stage, like, with_ratio=True))
        for at, stage in enumerate(stages)
    ]
    caption = f"MACs of each stage per {verdict.noun.one}, mean"
    told = "; ".join(f"{key.name} {key.detail}" for key in legend)
    label = f"{caption}, {verdict.victim}, clean → {series(row)} {words.at(row)}: {told}"
    names = "clean", f"{series(row)}, {words.at(row)}"
    return [Figure("stages", caption, _bars(stages, names, like, label), legend)]


def payers(own: pd.DataFrame, verdict: Verdict, palette: Mapping[str, str]) -> list[Figure]:
    """Shares of inputs with work in each stage; nothing where all pay for every stage.

    Args:
        own: its per-sample rows.
        verdict: on it.
        palette: colours of attacks.
    """
    row = verdict.attack if verdict.worst else None
    if row is None:
        return []
    shares = _paired(*((table > 0).mean() for table in _told(own, row)))
    if all(stage.clean == stage.attacked == 1 for stage in shares):
        return []
    pairs = [axes.Pair(*stage) for stage in shares]
    caption = f"Share of {verdict.noun.many} that paid for it"
    label = f"{caption}, {verdict.victim}: " + "; ".join(
        f"{pair.name}: clean {pair.clean:.0%}, attacked {pair.attacked:.0%}" for pair in pairs
    )
    css = palette.get(series(row), "s0")
    legend = [Key("clean", "clean"), Key(css, series(row), words.at(row))]
    return [Figure("paid", caption, axes.paired_bars(pairs, css, label), legend)]


def paid_by(pair: Pair) -> list[Shown]:
    """What one input paid for, of the most that it can; nothing where its rows do not tell it."""
    before, after = (_of_row(row) for row in (pair.before, pair.row))
    stages, most = _paired(before, after), pair.row["max_macs"]
    if not stages or words.missing(most):
        return []
    like = max(_totals(stages))
    told = ", ".join(f"{stage.name} {_moved(stage, like)}" for stage in stages)
    label = f"MACs of each stage, example {pair.sample}, clean → attacked: {told}"
    drawing = _bars(stages, ("clean", "attacked"), most, label)
    return [Shown(f"paid for: {told}", drawing, "whole")]


def _told(own: pd.DataFrame, row: Row) -> tuple[pd.DataFrame, pd.DataFrame]:
    """MACs by stage of the inputs that tell it, clean and under an attack."""
    if "stage_macs" not in own:
        return pd.DataFrame(), pd.DataFrame()
    pair = own[own["attack"] == "clean"], samples_of(row, own)
    clean, attacked = (
        pd.DataFrame([json.loads(text) for text in rows["stage_macs"].dropna()]) for rows in pair
    )
    return clean, attacked


def _of_row(row: Row) -> pd.Series:
    told = row.get("stage_macs")
    return pd.Series(json.loads(told) if isinstance(told, str) else {}, dtype=float)


def _paired(clean: pd.Series, attacked: pd.Series) -> list[Stage]:
    """None where the two tell of other stages."""
    if list(clean.index) != list(attacked.index):
        return []
    return [Stage(str(name), clean[name], attacked[name]) for name in clean.index]


def _totals(stages: Sequence[Stage]) -> tuple[float, float]:
    return sum(stage.clean for stage in stages), sum(stage.attacked for stage in stages)


def _moved(stage: Stage, like: float, with_ratio: bool = False) -> str:
    moved = f"{words.macs(stage.clean, like)} → {words.macs(stage.attacked, like)}"
    if with_ratio and stage.clean:
        return f"{moved}, {words.ratio(stage.attacked / stage.clean)}"
    return moved


def _css(stage: int) -> str:
    return f"stage{min(stage, TONES - 1)}"


def _bars(stages: Sequence[Stage], names: tuple[str, str], most: float, label: str) -> Drawing:
    """Clean above attacked, each with its sum, on a scale that ends at ``most``."""
    totals = _totals(stages)
    marks: list[Markup] = []
    for row, (name, total) in enumerate(zip(names, totals, strict=True)):
        top = 18 + row * PITCH
        marks.append(svg.text(svg.clip(name, 48), "label", 0, top - 5))
        marks.append(svg.rect("slot", 0.0, top, RIGHT, THICK))
        at = 0.0
        for number, stage in enumerate(stages):
            width = RIGHT * (stage.attacked if row else stage.clean) / most
            marks.append(svg.rect(f"bar {_css(number)}", at, top, width, THICK))
            at += width
            if number < len(stages) - 1:
                marks.append(svg.vertical("seam", at, top, top + THICK))
        marks.append(svg.text(words.macs(total, max(totals)), "value end", WIDTH, top + 14))
    return svg.draw(WIDTH, 18 + PITCH + THICK + 6, label, *marks)
