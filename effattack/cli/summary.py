"""``effattack summary``: stored scores, or a comparison, as Markdown for CI and model cards."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from effattack.streams import shown

HELP = "stored scores, or several compared, as Markdown: for a CI run, a comment, a model card"
EXAMPLES = """examples:
  effattack summary effattack-report >> "$GITHUB_STEP_SUMMARY"
  effattack summary before/ after/ > comment.md
  effattack summary --card effattack-report >> README.md
"""


def arguments(summary: argparse.ArgumentParser) -> None:
    summary.add_argument(
        "folders", type=Path, nargs="+", metavar="DIR", help="several are compared with the first"
    )
    summary.add_argument(
        "--card", action="store_true", help='the block "Robustness of efficiency" of a model card'
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.reporting.card import card
    from effattack.reporting.joining import loaded
    from effattack.reporting.markdown import fitting

    samples, scores, meta = loaded(options.folders).report()
    text = card(samples, scores, meta) if options.card else fitting(scores, meta)
    print(shown(text), end="")
    return 0
