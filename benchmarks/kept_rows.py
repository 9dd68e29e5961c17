"""Rows of long benchmarks: each is a line of JSON, kept as soon as it is there."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def kept(path: Path) -> list[dict[str, Any]]:
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
