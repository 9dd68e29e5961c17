"""The per-sample frame: its columns, the number of their meaning, and what earlier ones lack."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Any

from effattack.results.currency import MACS

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
"""Of the stored frames; raised when their columns change meaning."""

CERTIFIED = ("certified_work", "certified_clean_work", "certified_max_work")
"""What a certificate says of an input, in the currency that judges: the most that any input of the
threat takes, what the clean one takes, and what savings are counted from; empty without one."""

COLUMNS = [
    *("victim", "family", "attack", "kind", "threat", "eps", "seed", "sample", "label"),
    *("prediction", "clean_prediction", "macs", "clean_macs", "dense_macs", "max_macs", "constant"),
    *("elementwise", "clean_elementwise", "outside"),
    *("knife_edge", "linf", "l2", "batch_size", "seconds", "clean_seconds", "clock"),
    *("event_seconds", "clean_event_seconds", "environment", "joules", "clean_joules"),
    *("idle_watts", "modelled_joules", "clean_modelled_joules", "node", "device"),
    *("opened", "decisions", "image", "l1", "pixels"),
    *("right", "same", "currency", "knowledge", "as_twin"),
    *("capped", "clean_capped", "tokens_sent"),
    *CERTIFIED,
    *("stage_macs", "heat"),
]
"""Columns of every per-sample frame; README of the fields in ``docs/frames.md``. A frame also has
those of its counts, and of the distances of its domain."""
LATER = {
    *("l1", "pixels", "right", "same", "currency", "knowledge", "as_twin"),
    *("capped", "clean_capped", "tokens_sent"),
    *CERTIFIED,
    *("stage_macs", "heat"),
}
"""Columns that earlier frames of this schema lack: not measured there, or told by the others."""

ANSWERS = ("label", "prediction", "clean_prediction")
"""Columns of answers: class numbers, or text where a task says something else."""

KNOWLEDGE = ("nothing", "queries", "transfer", "white box")
"""What an attacker sees of the victim, from the least on."""
_KNEW = {"QueryAttack": "queries", "LatencyQuery": "queries", "Transfer": "transfer"}
"""Attacks of frames that did not say it; the others saw all."""


def arranged(samples: pd.DataFrame) -> pd.DataFrame:
    """The columns of every frame, behind them those of its own counts and distances."""
    return completed(samples.reindex(columns=list(dict.fromkeys([*COLUMNS, *samples.columns]))))


def storable(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples as one file can hold them: where classes stand beside texts, both are text."""
    mixed = [column for column in ANSWERS if _mixed(samples[column])]
    texts = {column: samples[column].astype(str).where(samples[column].notna()) for column in mixed}
    return samples.assign(**texts)


def _mixed(answers: pd.Series) -> bool:
    texts = answers.dropna().map(lambda answer: isinstance(answer, str))
    return bool(texts.any() and not texts.all())


def completed(samples: pd.DataFrame) -> pd.DataFrame:
    """The samples with what earlier versions left to be told by the other columns.

    Their answers were classes: right is the label, the same is the clean one. Their currency was
    MACs, and an attack's name told what it sees.
    """
    told = {
        "right": samples.prediction == samples.label,
        "same": samples.prediction == samples.clean_prediction,
        "currency": MACS,
        "knowledge": knew(samples),
        "knife_edge": False,
        "as_twin": None,
        "capped": None,
        "clean_capped": None,
        "tokens_sent": nan,
    }
    filled = {column: _filled(samples, column, value) for column, value in told.items()}
    filled |= {column: nan for column in CERTIFIED if column not in samples}
    flags = {column: filled[column].astype(bool) for column in ("right", "same", "knife_edge")}
    return samples.assign(**(filled | flags))


def knew(rows: pd.DataFrame) -> pd.Series:
    """What attackers saw of a victim, as the names of attacks tell."""
    by_name = rows.attack.astype(str).str.extract(r"^(\w+)", expand=False).map(_KNEW)
    return by_name.fillna("white box").mask(rows.kind == "control", "nothing")


def _filled(samples: pd.DataFrame, column: str, otherwise: Any) -> pd.Series:
    """A column, and what stands in for it where it is missing."""
    if column not in samples:
        return samples.assign(**{column: otherwise})[column]
    return samples[column].astype(object).where(samples[column].notna(), otherwise)
