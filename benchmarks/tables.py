"""How the benchmarks print a table, and put it in its place on a page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from effattack.errors import UsageError


def markdown(frame: pd.DataFrame) -> str:
    """A Markdown table; all cells as they print."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(page: Path, head: str, frame: pd.DataFrame) -> None:
    """Put a table in place of the one on a page whose first line begins with ``head``.

    Raises:
        UsageError: where there is none, or more than one.
    """
    lines = page.read_text(encoding="utf-8").split("\n")
    begins = [number for number, line in enumerate(lines) if line.startswith(head)]
    if len(begins) != 1:
        raise UsageError(f"{page} has {len(begins)} lines that begin with {head!r}: one is needed")
    (first,) = begins
    last = next(n for n in range(first, len(lines) + 1) if not "".join(lines[n : n + 1]))
    made = markdown(frame).split("\n")
    page.write_text("\n".join([*lines[:first], *made, *lines[last:]]), encoding="utf-8")
