"""Series and labels from text: CSV, and the ``.ts`` files of the UCR and UEA archives.

Both give float32 series (B, channels, length) and labels (B,) from 0 on. A line that cannot be
read is named by its number, counted from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, nan
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effattack.inputs.text_lines import BrokenLine, Line, lines_of, unreadable

Row = tuple[int, np.ndarray, int]
"""The number of a line, its series (channels, length), and its class."""


def read_csv(path: Path) -> tuple[Tensor, Tensor]:
    """One series of one channel per line: numbers between commas, and the class, from 0 on.

    The first line names the columns; the first or the last of them is ``label``. Comments (``#``)
    are passed over.

    Raises:
        UsageError: for anything else, with the number of the line.
    """
    try:
        lines = (line for line in lines_of(path) if line[1][0] != "#")
        number, header = next(lines, (1, ""))
        names = [name.strip().strip('"').lower() for name in header.split(",")]
        if names.count("label") != 1 or "label" not in (names[0], names[-1]):
            raise BrokenLine(
                number, "it must name the columns, and the first or the last of them 'label'"
            )
        first = names[0] == "label"
        rows = [_csv_row(number, text, len(names), first) for number, text in lines]
        return _arrays(rows)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _csv_row(
    number: int, text: str, columns: int, label_first: bool
) -> tuple[int, np.ndarray, int]:
    cells = text.split(",")
    if len(cells) != columns:
        raise BrokenLine(number, f"{len(cells)} columns, the first line names {columns}")
    label, values = (cells[0], cells[1:]) if label_first else (cells[-1], cells[:-1])
    if not label.strip().isdecimal():
        raise BrokenLine(number, f"label {label.strip()!r} is no class: classes count from 0 on")
    return number, np.array([_values(number, values)]), int(label)


def read_ts(path: Path) -> tuple[Tensor, Tensor]:
    """One series per line, ``v,v,v:label``; several channels stand between colons.

    Classes are numbered in the order of ``@classLabel``. Comments (``#``) and what else the header
    tells are passed over.

    Raises:
        UsageError: for missing values, time stamps, unequal lengths, a class that the header does
            not name, or a line that is no series; with the number of the line.
    """
    try:
        lines = lines_of(path)
        classes = ts_classes(lines)
        rows = [_ts_row(number, text, classes) for number, text in lines if text[0] != "#"]
        return _arrays(rows)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def ts_classes(lines: Iterator[Line]) -> list[str]:
    """The names of the classes; reads the header, its last line ``@data`` included."""
    classes: list[str] = []
    for number, text in lines:
        key, *words = text.split()
        key = key.lower()
        if key == "@data":
            if not classes:
                raise BrokenLine(number, "no '@classlabel true NAME NAME ...' stands before it")
            return classes
        if key == "@timestamps" and [word.lower() for word in words] != ["false"]:
            raise BrokenLine(number, "time stamps are not read: store the values alone")
        if key == "@classlabel" and words[:1] and words[0].lower() == "true":
            classes = words[1:]
        elif key[0] not in "@#":
            raise BrokenLine(number, "it stands before '@data' and begins neither with '@' nor '#'")
    raise ValueError("it has no line '@data'")


def _ts_row(number: int, text: str, classes: list[str]) -> Row:
    *channels, label = text.split(":")
    if not channels:
        raise BrokenLine(number, "no ':' and class follow its values")
    if label.strip() not in classes:
        raise BrokenLine(number, f"class {label.strip()!r} is none of {', '.join(classes)}")
    rows = [_values(number, channel.split(",")) for channel in channels]
    if len({len(row) for row in rows}) > 1:
        raise BrokenLine(number, f"its channels have {[len(row) for row in rows]} values")
    return number, np.array(rows), classes.index(label.strip())


def _values(number: int, cells: list[str]) -> list[float]:
    return [_value(number, place, cell.strip()) for place, cell in enumerate(cells, 1)]


def _value(number: int, place: int, cell: str) -> float:
    try:
        value = nan if "_" in cell else float(cell)  # to Python 1_0 is 10, to nobody's sensor
    except ValueError:
        value = nan
    if isfinite(value):
        return value
    what = "is missing" if cell.lower() in ("", "?", "nan") else f"is {cell!r}, no finite number"
    raise BrokenLine(number, f"value {place} {what}: fill or leave out that series")


def _arrays(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """Series of one shape, stacked.

    Raises:
        BrokenLine: at the first that differs from the first one.
    """
    if not rows:
        raise ValueError("it holds no series")
    first, like, _ = rows[0]
    for number, series, _ in rows:
        if series.shape != like.shape:
            raise BrokenLine(
                number,
                f"{_size(series)}, but line {first} has {_size(like)}: bring all series to one "
                "length, or, for a victim of free lengths, make a file of each length",
            )
    stacked = torch.from_numpy(np.stack([series for _, series, _ in rows])).float()
    return stacked, torch.tensor([label for *_, label in rows])


def _size(series: np.ndarray) -> str:
    channels, length = series.shape
    return f"{length} values" if channels == 1 else f"{channels} channels of {length} values"


SERIES_FILES = {".csv": read_csv, ".ts": read_ts}
"""Suffix -> reader."""
