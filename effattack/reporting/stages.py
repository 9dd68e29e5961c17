"""Where the work went in a pipeline: the MACs of each stage, clean and attacked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from effattack.reporting import svg, words
from effattack.reporting.figure import Figure, Key
from effattack.reporting.svg import Drawing
from effattack.reporting.verdict import Verdict, samples_of, series

WIDTH, RIGHT = 480.0, 414.0
THICK, PITCH = 20.0, 46.0
TONES = 5
"""Of the stages, from dark to light; later ones have the last."""


class Stage(NamedTuple):
    """One stage, means over inputs, in MACs."""

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
    if row is None or "stage_macs" not in own:
        return []
    clean, attacked = _means(own[own["attack"] == "clean"]), _means(samples_of(row, own))
    if not clean or clean.keys() != attacked.keys():
        return []
    stages = [Stage(name, clean[name], attacked[name]) for name in clean]
    totals = sum(clean.values()), sum(attacked.values())
    like = max(totals)
    legend = [
        Key(_css(at), stage.name, _told(stage.clean, stage.attacked, like))
        for at, stage in enumerate(stages)
    ]
    caption = f"MACs of each stage per {verdict.noun.one}, mean"
    told = "; ".join(f"{key.name} {key.detail}" for key in legend)
    label = f"{caption}, {verdict.victim}, clean → {series(row)} {words.at(row)}: {told}"
    names = "clean", f"{series(row)}, {words.at(row)}"
    return [Figure("stages", caption, _bars(stages, names, totals, label), legend)]


def _means(rows: pd.DataFrame) -> dict[str, float]:
    """Stage name -> MACs, of the rows that tell it."""
    told = [json.loads(text) for text in rows["stage_macs"].dropna()]
    return pd.DataFrame(told).mean().to_dict() if told else {}


def _told(clean: float, attacked: float, like: float) -> str:
    moved = f"{words.macs(clean, like)} → {words.macs(attacked, like)}"
    return f"{moved}, {words.ratio(attacked / clean)}" if clean else moved


def _css(stage: int) -> str:
    return f"stage{min(stage, TONES - 1)}"


def _bars(
    stages: Sequence[Stage], names: tuple[str, str], totals: tuple[float, float], label: str
) -> Drawing:
    """Clean above attacked, on one scale, each with its sum."""
    like = max(totals)
    marks: list[Markup] = []
    for row, (name, total) in enumerate(zip(names, totals, strict=True)):
        top = 18 + row * PITCH
        marks.append(svg.text(svg.clip(name, 48), "label", 0, top - 5))
        marks.append(svg.rect("slot", 0.0, top, RIGHT, THICK))
        at = 0.0
        for number, stage in enumerate(stages):
            width = RIGHT * (stage.attacked if row else stage.clean) / like
            marks.append(svg.rect(f"bar {_css(number)}", at, top, width, THICK))
            at += width
            if number < len(stages) - 1:
                marks.append(svg.vertical("seam", at, top, top + THICK))
        marks.append(svg.text(words.macs(total, like), "value end", WIDTH, top + 14))
    return svg.draw(WIDTH, 18 + PITCH + THICK + 6, label, *marks)
