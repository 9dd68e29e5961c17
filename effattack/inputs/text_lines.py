"""Files of text, line by line: what is wrong with one is told with its number, counted from 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from effattack.errors import UsageError
from effattack.streams import on_one_line

Line = tuple[int, str]
"""A number and a text without surrounding blanks."""


class BrokenLine(ValueError):
    """What is wrong with a line of a file, and its number."""

    def __init__(self, number: int, fault: str) -> None:
        super().__init__(f"line {number}: {fault}")


def lines_of(path: Path) -> Iterator[Line]:
    """The lines that are not empty, a byte order mark passed over."""
    if not path.is_file():  # opening a pipe would wait for a writer
        raise ValueError("it is no file")
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if text.strip():
                yield number, text.strip()


def unreadable(path: Path, error: Exception) -> UsageError:
    """That a file cannot be read, and why."""
    reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error)
    return UsageError(f"cannot read {on_one_line(path)}: {on_one_line(reason)}")
