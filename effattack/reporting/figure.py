"""A figure of the report: a drawing with its caption and its legend."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from effattack.reporting.svg import Drawing
from effattack.reporting.verdict import rows_of, series

SERIES = 6
"""Colours for compute attacks; more attacks than that take them again, dotted."""


class Key(NamedTuple):
    """One entry of a legend."""

    css: str
    name: str
    detail: str = ""


class Figure(NamedTuple):
    """What is drawn once in the page, and can be written to a file of its own."""

    slug: str
    """Names the file, behind the victim's name."""
    caption: str
    drawing: Drawing
    legend: list[Key]


def colours(scores: pd.DataFrame) -> dict[str, str]:
    """One class for each compute attack, the same in every figure."""
    compute = rows_of(scores[scores["kind"] == "compute"])
    return {
        attack: f"s{index % SERIES}{' again' if index >= SERIES else ''}"
        for index, attack in enumerate(dict.fromkeys(map(series, compute)))
    }
