"""``effattack report``: make the report again from stored frames, or compare several."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli import output
from effattack.cli.terminal import PLAIN, print_scores
from effattack.errors import UsageError

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation

HELP = "make the report again from stored frames, or compare several"
EXAMPLES = """examples:
  effattack report effattack-report
  effattack report --json effattack-report | jq '.scores[].savings_retained'
  effattack report before/ after/ --out comparison.html
"""


def arguments(report: argparse.ArgumentParser) -> None:
    report.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="several are compared, with --out"
    )
    report.add_argument("--out", type=Path, metavar="FILE", help="the page (DIR/report.html)")
    report.add_argument(
        "--figures", choices=["svg", "pdf"], help="also write every figure to a file of its own"
    )
    output.arguments(report)


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.reporting.joining import loaded

    folders, out = options.folders, options.out
    if len(folders) > 1 and out is None:
        raise UsageError("several folders are compared in one page: name it with --out FILE")
    evaluation = loaded(folders)
    if options.by:
        evaluation = evaluation.judged_by(options.by)
    if out is None:
        write(evaluation, folders[0], console, options.verbose)
    else:
        _write_page(evaluation, out, console)
    page = out or folders[0] / "report.html"
    if options.figures:
        _write_figures(evaluation, page.parent / "figures", options.figures, console)
    if options.json:
        output.print_json(evaluation, page, options.stdout)
    return 0


def check_free(folder: Path) -> None:
    """Refuse a folder in which no result can be written, before there is one.

    Raises:
        UsageError: naming what is in the way.
    """
    from effattack.results.files import replaceable

    for name in ("samples.parquet", "scores.csv", "meta.json", "report.html"):
        replaceable(folder / name)


def write(evaluation: Evaluation, folder: Path, console: Console, verbose: bool) -> None:
    """Frames and report into the folder, the score table onto the terminal."""
    from effattack.reporting import html
    from effattack.results.files import writing

    with writing(folder):
        evaluation.save(folder)
        html.write(*evaluation.report(), folder / "report.html")
    print_scores(evaluation, console, verbose)
    console.print(f"{folder / 'report.html'}, scores.csv, samples.parquet", **PLAIN)


def _write_page(evaluation: Evaluation, out: Path, console: Console) -> None:
    from effattack.reporting import html

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        console.print(str(html.write(*evaluation.report(), out)), **PLAIN)
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}): give another --out") from error


def _write_figures(evaluation: Evaluation, folder: Path, form: str, console: Console) -> None:
    from effattack.reporting import exporting

    paths = exporting.write(*evaluation.report(), folder, form)
    console.print(f"{len(paths)} figures in {folder}", **PLAIN)
