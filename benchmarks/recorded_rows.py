"""Rows of attacks on spoken sentences; recordings are kept, to be heard and judged elsewhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from kept_rows import kept
from torch import Tensor

from effattack.attacks import build
from effattack.inputs.wav_files import read_wav, write_wav
from effattack.threats import parse_threat
from effattack.victim import Victim


class Cell(NamedTuple):
    """One row: an attack on one sentence."""

    attack: str
    eps: float
    sentence: int


Rows = dict[Cell, dict[str, Any]]


def decibels(clean: Tensor, attacked: Tensor) -> float:
    """Power of the recording over that of the change."""
    change = (attacked - clean).double().square().sum().item()
    return 10 * math.log10(clean.double().square().sum().item() / change) if change else math.inf


def heard(victim: Victim, cell: Cell, clean: Tensor, folder: Path) -> Tensor:
    """The recording of a row, (1, 1, n): made once, then read from its file."""
    if cell.attack == "clean":
        return clean
    attack = cell.attack.partition("(")[0]
    file = folder / f"{victim.name}_{attack}_{cell.eps}_{cell.sentence}.wav"
    if not file.exists():
        write_wav(file, build(cell.attack, victim, parse_threat(f"linf:{cell.eps}"), 0)(clean))
    return read_wav(file)


def stored(path: Path) -> Rows:
    """The rows that are there."""
    return {Cell(*(line[field] for field in Cell._fields)): line for line in kept(path)}
