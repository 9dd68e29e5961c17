"""The command line: ``effattack run | list | report | ...``, one file per command.

A command is a module with its ``HELP`` line, its ``EXAMPLES``, its ``arguments`` and its ``run``.

Exit codes: 0 all is well, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from effattack.cli import (
    calibrate,
    completion,
    doctor,
    listing,
    output,
    report,
    run,
    scoreboard,
    summary,
)
from effattack.errors import EffattackError, FactoryError, MeasurementError
from effattack.terminal import PLAIN

COMMANDS = {
    "run": run,
    "list": listing,
    "report": report,
    "summary": summary,
    "scoreboard": scoreboard,
    "doctor": doctor,
    "calibrate": calibrate,
    "completion": completion,
}
EXIT_CODES = """exit codes: 0 passed, 1 a limit was crossed or a score got worse than the baseline,
2 wrong usage, 3 it could not be measured, 130 interrupted (`effattack run` resumes)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``effattack`` command; returns the exit code."""
    # Read when torch loads. Threads that spin while they wait for each other took six times as long
    # beside two busy neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser().parse_args(arguments)
    console, errors = output.console_of(options), Console(stderr=True)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with warnings_on_one_line():
            return int(options.handler(options, console))
    except EffattackError as error:
        errors.print(f"effattack: {error}", style="red", **PLAIN)
        if isinstance(error, FactoryError):
            traceback.print_exception(error.__cause__)
        return error.exit_code
    except KeyboardInterrupt:
        resumes = "; the same command resumes after the finished cells" * options.resumes
        errors.print(f"effattack: interrupted{resumes}", **PLAIN)
        return 130
    except Exception as error:
        traceback.print_exc()
        errors.print(f"effattack: {type(error).__name__}: {error}", **PLAIN)
        return MeasurementError.exit_code


@contextmanager
def warnings_on_one_line() -> Iterator[None]:
    """A warning as a sentence, without the line of source that gave it."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"effattack: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="effattack",
        description="How much of an efficient model's savings can an attacker take back?",
        epilog=f"{run.EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_commands(whole)
    return whole


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    return _add_commands(argparse.ArgumentParser())


def _add_commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    commands, found = parser.add_subparsers(required=True, metavar="COMMAND"), {}
    for name, command in COMMANDS.items():
        found[name] = commands.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            epilog=f"{command.EXAMPLES}\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.arguments(found[name])
        found[name].set_defaults(handler=command.run, resumes=command is run)
    return found
