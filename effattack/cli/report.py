"""``effattack report``: make the report again from stored frames."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.terminal import PLAIN, print_scores

if TYPE_CHECKING:
    from effattack.evaluation import Evaluation

HELP = "make the report again from stored frames"


def arguments(report: argparse.ArgumentParser) -> None:
    report.add_argument("folder", type=Path, metavar="DIR")


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.evaluation import Evaluation

    write(Evaluation.load(options.folder), options.folder, console)
    return 0


def write(evaluation: Evaluation, folder: Path, console: Console) -> None:
    """Frames and report into the folder, the score table onto the terminal."""
    from effattack.reporting import html

    evaluation.save(folder)
    html.write(*evaluation.report(), folder / "report.html")
    print_scores(evaluation, console)
    console.print(f"{folder / 'report.html'}, scores.csv, samples.parquet", **PLAIN)
