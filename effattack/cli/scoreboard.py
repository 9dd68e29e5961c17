"""``effattack scoreboard``: one page from published scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from effattack.budgets import parse_eps
from effattack.cli.terminal import PLAIN
from effattack.errors import UsageError

HELP = "rank victims on one page, from published scores"
EXAMPLES = """examples:
  effattack scoreboard
  effattack scoreboard reports --eps 4/255 --out scoreboard.html
"""


def arguments(scoreboard: argparse.ArgumentParser) -> None:
    scoreboard.add_argument(
        "folder", type=Path, nargs="?", default=Path("reports"), metavar="DIR",
        help="holds a folder per victim with scores.csv and meta.json (reports)",
    )  # fmt: skip
    scoreboard.add_argument("--eps", default="8/255", help="l-inf budget of the ranking (8/255)")
    scoreboard.add_argument(
        "--cards", type=Path, default=Path("models_zoo/cards"), metavar="DIR",
        help="cards to link, NAME.json (models_zoo/cards)",
    )  # fmt: skip
    scoreboard.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (DIR/scoreboard.html)"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.reporting import scoreboard

    out = options.out or options.folder / "scoreboard.html"
    published = scoreboard.load(options.folder)
    claims = options.folder / scoreboard.CLAIMS
    document = scoreboard.render(
        published, parse_eps(options.eps), options.cards, claims, out.absolute()
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}): give another --out") from error
    console.print(f"{out}: {len(published)} published folders", **PLAIN)
    return 0
