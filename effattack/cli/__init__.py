"""The command line: ``effattack run | list | report | ...``, one file per command.

A command is a module with its ``HELP`` line, its ``EXAMPLES``, its ``arguments`` and its ``run``.

Exit codes: 0 all is well, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from effattack import __version__, streams
from effattack.cli import (
    calibrate,
    caps,
    certify,
    check,
    completion,
    doctor,
    export,
    harden,
    inputs,
    listing,
    output,
    report,
    run,
    scoreboard,
    summary,
    verify,
)
from effattack.cli.terminal import PLAIN, Screen
from effattack.errors import EffattackError, FactoryError, MeasurementError
from effattack.registry.borders import staying

COMMANDS = {
    "run": run,
    "list": listing,
    "report": report,
    "summary": summary,
    "scoreboard": scoreboard,
    "verify": verify,
    "certify": certify,
    "caps": caps,
    "check": check,
    "inputs": inputs,
    "export": export,
    "harden": harden,
    "doctor": doctor,
    "calibrate": calibrate,
    "completion": completion,
}
EXIT_CODES = """exit codes: 0 passed, 1 a limit was crossed or a score got worse than the baseline,
2 wrong usage, 3 it could not be measured, 130 interrupted (`run` and `harden` resume)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``effattack`` command; returns the exit code."""
    # Read when torch loads. Threads that spin while they wait for each other took six times as long
    # beside two busy neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with streams.safe():
        options = parser().parse_args(arguments)
        with output.stdout_of(options) as options.stdout:
            return _answer(options)


def command() -> int:
    """The ``effattack`` command as a process of its own: nothing changes its exit code any more."""
    code, leave, here = main(), os._exit, os.getpid()
    os._exit = lambda status: leave(code if os.getpid() == here else status)
    return code


def _answer(options: argparse.Namespace) -> int:
    errors = Screen(stderr=True)
    try:
        with staying("user code"):
            output.show_scores(options)
            return int(options.handler(options, output.console_of(options)))
    except EffattackError as error:
        errors.print(f"effattack: {error}", style="red", **PLAIN)
        if isinstance(error, FactoryError):
            _print_traceback(error.__cause__)
        return error.exit_code
    except KeyboardInterrupt:
        after = f"; the same command resumes after the finished {options.resumes}"
        errors.print(f"effattack: interrupted{after * bool(options.resumes)}", **PLAIN)
        return 130
    except Exception as error:
        _print_traceback(error)
        errors.print(f"effattack: {type(error).__name__}: {error}", **PLAIN)
        return MeasurementError.exit_code


def _print_traceback(error: BaseException | None) -> None:
    print(streams.shown("".join(traceback.format_exception(error))), end="", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """One whose errors, too, send nothing that a terminal obeys."""

    def error(self, message: str) -> NoReturn:
        super().error(streams.shown(message))


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    whole = _Parser(
        prog="effattack",
        description="How much of an efficient model's savings can an attacker take back?",
        epilog=f"{run.EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"effattack {__version__}")
    _add_commands(whole)
    return whole


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of every command."""
    return _add_commands(_Parser())


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
        for action in found[name]._actions:
            if action.nargs != 0:
                action.type = _filled(action.type or str)
        resumes = {run: "cells", harden: "epochs"}.get(command, "")
        found[name].set_defaults(handler=command.run, resumes=resumes, parsers=parsers)
    return found


def _filled(convert: Any) -> Callable[[str], Any]:
    """The same conversion, of a value that is not empty."""

    def filled(text: str) -> Any:
        if not text.strip():
            raise argparse.ArgumentTypeError(
                "it is empty, as an unset variable leaves it: give a value, or leave it out"
            )
        return convert(text)

    filled.__name__ = convert.__name__  # argparse names it where a value is none
    return filled
