"""Rows of long benchmarks: each is a line of JSON, kept as soon as it is there."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from effattack.cells.spec import code_version

Row = dict[str, Any]


def kept(path: Path) -> list[Row]:
    """The rows that are there, none without a file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Put a row behind the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def commit() -> str:
    """The one that is checked out, in short."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()


def parser_of(about: str, path: Path) -> argparse.ArgumentParser:
    """The command line of a benchmark that keeps rows, at a path unless another is named."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--rows", type=Path, default=path, help="where rows are kept")
    parser.add_argument("--table", action="store_true", help="print the rows that are there")
    return parser


def command(
    about: str,
    path: Path,
    keys: Sequence[str],
    asked: Iterable[tuple[Any, ...]],
    measured: Callable[..., Mapping[str, Any]],
    shown: Callable[[list[Row]], str],
) -> None:
    """The whole command of a benchmark: rows that are asked for and not yet kept are measured.

    Args:
        about: what the help says.
        path: of the rows, unless another is named.
        keys: what tells rows apart.
        asked: values of these keys, row by row.
        measured: these values -> the rest of the row.
        shown: rows -> what ``--table`` prints.
    """
    args = parser_of(about, path).parse_args()
    torch.set_num_threads(1)
    rows = kept(args.rows)
    if args.table:
        print(shown(rows))
        return
    done = {tuple(row[key] for key in keys) for row in rows}
    for one in asked:
        if one not in done:
            found = measured(*one)
            keep(args.rows, {**dict(zip(keys, one, strict=True)), **found, "code": code_version()})
            print(*one, found, flush=True)
