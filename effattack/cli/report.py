"""``effattack report``: make the report again from stored frames."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli import output
from effattack.terminal import PLAIN, print_scores

if TYPE_CHECKING:
    from effattack.evaluation import Evaluation

HELP = "make the report again from stored frames"
EXAMPLES = """examples:
  effattack report effattack-report
  effattack report --json effattack-report | jq '.scores[].savings_retained'
"""


def arguments(report: argparse.ArgumentParser) -> None:
    report.add_argument("folder", type=Path, metavar="DIR")
    output.arguments(report)


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.evaluation import Evaluation

    evaluation = Evaluation.load(options.folder)
    write(evaluation, options.folder, console)
    if options.json:
        output.print_json(evaluation, options.folder)
    return 0


def write(evaluation: Evaluation, folder: Path, console: Console) -> None:
    """Frames and report into the folder, the score table onto the terminal."""
    from effattack.reporting import html

    evaluation.save(folder)
    html.write(*evaluation.report(), folder / "report.html")
    print_scores(evaluation, console)
    console.print(f"{folder / 'report.html'}, scores.csv, samples.parquet", **PLAIN)
