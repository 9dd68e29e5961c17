"""Rows of attacks on spoken sentences; recordings are kept, to be heard and judged elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown
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


def command(
    about: str,
    path: Path,
    load: Callable[[], Any],
    cells: Iterable[Cell],
    row: Callable[[Any, Cell, Path], dict[str, Any]],
    table: Callable[[Rows], pd.DataFrame],
) -> None:
    """A system on the command line: rows that are missing, each kept at once, or the table of all.

    Args:
        about: what it does.
        path: of the rows, unless another is named.
        load: makes the victim.
        cells: all rows that there should be.
        row: what victim, cell and folder of recordings come to.
        table: what is printed of rows.
    """
    parser = parser_of(about, path)
    parser.add_argument("--recordings", type=Path, help="folder where recordings are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = stored(args.rows)
    if args.table:
        print(markdown(table(known)))
        return
    if args.recordings is None:
        parser.error("name the folder that recordings are kept in: --recordings FOLDER")
    victim, folder = load(), args.recordings
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if cell not in known:
            found = row(victim, cell, folder)
            keep(args.rows, found)
            print(*cell, found["passes"], repr(found["text"][:80]), flush=True)
