"""Where the commands that score write: a table for people, JSON for programs, or nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console

from effattack import streams
from effattack.cli.terminal import PLAIN, Screen

if TYPE_CHECKING:
    from effattack.results.changes import Change
    from effattack.results.evaluation import Evaluation
    from effattack.results.limits import Verdict

SCHEMA = 1
"""Of ``--json``; raised when its fields change meaning."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """``--quiet``, ``--verbose`` or ``--json``; and what is shown beside our own scores."""
    parser.add_argument(
        "--score",
        action="append",
        default=[],
        metavar="NAME|MODULE:OBJECT",
        help="a score from outside: a column of scores.csv; effattack list scores",
    )
    parser.add_argument(
        "--by", metavar="COUNT", help="judge by another audited count than each victim's currency"
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quiet", action="store_true", help="say only what went wrong")
    choice.add_argument("--verbose", action="store_true", help="say why attacks were skipped")
    choice.add_argument("--json", action="store_true", help="the scores as JSON, and nothing else")


def show_scores(options: argparse.Namespace) -> None:
    """Take in the scores that the options name.

    Raises:
        UsageError: for what is no score.
    """
    from effattack.results.table import called

    for name in getattr(options, "score", ()):
        called(name)


def console_of(options: argparse.Namespace) -> Console:
    """For progress and tables; with ``--json`` they make room on the standard output."""
    return Screen(stderr=getattr(options, "json", False), quiet=getattr(options, "quiet", False))


def stdout_of(options: argparse.Namespace) -> AbstractContextManager[TextIO]:
    """The standard output; with ``--json``, whatever else writes there goes to standard error."""
    return streams.reserved() if getattr(options, "json", False) else nullcontext(sys.stdout)


def print_json(
    evaluation: Evaluation,
    page: Path | None,
    stdout: TextIO,
    verdicts: Sequence[Verdict] = (),
    regressions: Iterable[Change] = (),
) -> None:
    """One object: scores, self-checks, what was skipped, limits, regressions, the report.

    What was replayed, and not attacked, is told as such, and has no report.
    """
    from effattack.results.caveats import caveats

    _, scores, meta = evaluation.report()
    beside = [
        f"{victim}: {told}"
        for victim, rows in scores.groupby("victim", sort=False)
        for told in caveats(rows, meta)
    ]
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "report": None if page is None else str(page),
        "scores": json.loads(scores.to_json(orient="records")),
        "limits": [
            {
                "victim": verdict.victim,
                "score": verdict.limit.score,
                "value": verdict.limit.value,
                "passed": verdict.passed,
                "message": verdict.message,
            }
            for verdict in verdicts
        ],
        "regressions": [str(change) for change in regressions],
        "checks": meta["checks"],
        "skipped": meta.get("skipped", []),
        "replayed": meta.get("replayed", []),
        "notes": [*meta.get("notes", []), *beside],
    }
    print(json.dumps(found, indent=1, default=str), file=stdout)


def print_bad_news(messages: Iterable[str], options: argparse.Namespace) -> None:
    """What went wrong is said also with ``--quiet``."""
    console = Screen(stderr=options.json)
    for message in messages:
        console.print(message, style="red", **PLAIN)
