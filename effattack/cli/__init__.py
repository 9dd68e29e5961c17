"""The command line: ``effattack run | list | report | ...``, one file per command.

A command is a module with its ``HELP`` line, its ``arguments`` and its ``run``.

Exit codes: 0 all is well, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from rich.console import Console

from effattack.cli import calibrate, doctor, listing, report, run, scoreboard
from effattack.errors import EffattackError, FactoryError, MeasurementError
from effattack.terminal import PLAIN

COMMANDS = {
    "run": run,
    "list": listing,
    "report": report,
    "scoreboard": scoreboard,
    "doctor": doctor,
    "calibrate": calibrate,
}
EXAMPLES = """examples:
  effattack run
  effattack run --victim mypackage.models:build --data images/ --fail-below savings_retained=0.6
  effattack run --victim digits_vit_ats --attack Slowdown --attack DeSparsify --eps 4/255
  effattack run --attack "Slowdown(threat='l2:1.0')" --attack "UniversalSlowdown(threat='patch:16')"
  effattack report effattack-report
  effattack report before/ after/ --out comparison.html

exit codes: 0 passed, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``effattack`` command; returns the exit code."""
    # Read when torch loads. Threads that spin while they wait for each other took six times as long
    # beside two busy neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = parser().parse_args(arguments)
    console, errors = Console(), Console(stderr=True)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return int(options.handler(options, console))
    except EffattackError as error:
        if isinstance(error, FactoryError):
            traceback.print_exception(error.__cause__)
        errors.print(f"effattack: {error}", style="red", **PLAIN)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("effattack: interrupted; the same command resumes after the finished cells")
        return 130
    except Exception as error:
        traceback.print_exc()
        errors.print(f"effattack: {type(error).__name__}: {error}", **PLAIN)
        return MeasurementError.exit_code


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="effattack",
        description="How much of an efficient model's savings can an attacker take back?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP)
        command.arguments(subparser)
        subparser.set_defaults(handler=command.run)
    return whole
