"""``effattack summary``: the stored scores as Markdown, for CI and model cards."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

HELP = "stored scores as Markdown: for the summary of a CI run, a comment, or a model card"
EXAMPLES = """examples:
  effattack summary effattack-report >> "$GITHUB_STEP_SUMMARY"
  effattack summary effattack-report > comment.md
  effattack summary --card effattack-report >> README.md
"""


def arguments(summary: argparse.ArgumentParser) -> None:
    summary.add_argument("folder", type=Path, metavar="DIR")
    summary.add_argument(
        "--card", action="store_true", help='the block "Robustness of efficiency" of a model card'
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.evaluation import Evaluation
    from effattack.reporting.card import card
    from effattack.reporting.markdown import fitting

    samples, scores, meta = Evaluation.load(options.folder).report()
    print(card(samples, scores, meta) if options.card else fitting(scores, meta), end="")
    return 0
