"""``effattack scoreboard``: one page from records."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from effattack.cli.terminal import PLAIN
from effattack.errors import UsageError

HELP = "rank victims on one page, from records"
EXAMPLES = """examples:
  effattack scoreboard
  effattack scoreboard reports --out scoreboard.html
"""


def arguments(scoreboard: argparse.ArgumentParser) -> None:
    scoreboard.add_argument(
        "folder", type=Path, nargs="?", default=Path("reports"), metavar="DIR",
        help="holds the folder records (reports)",
    )  # fmt: skip
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
    document, count = scoreboard.render(options.folder, options.cards, out.absolute())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(document, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {out} ({error.strerror}): give another --out") from error
    console.print(f"{out}: {count} records", **PLAIN)
    return 0
