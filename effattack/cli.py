"""The command line: ``effattack run | list | report | doctor``.

Exit codes: 0 all is well, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.budgets import parse_eps
from effattack.errors import EffattackError, FactoryError, MeasurementError, UsageError
from effattack.terminal import PLAIN, print_scores, progress_bar

if TYPE_CHECKING:
    from effattack.cells import Store
    from effattack.evaluation import Evaluation
    from effattack.planning import Plan
    from effattack.victim import Victim

EXAMPLES = """examples:
  effattack run
  effattack run --victim mypackage.models:build --data images/ --fail-below savings_retained=0.6
  effattack run --victim digits_vit_ats --attack Slowdown --attack DeSparsify --eps 4/255
  effattack run --attack "Slowdown(threat='l2:1.0')" --attack "UniversalSlowdown(threat='patch:16')"
  effattack report effattack-report

exit codes: 0 passed, 1 a limit was crossed, 2 wrong usage, 3 it could not be measured
"""
DEFAULT_VICTIMS = (
    "digits_cnn_early_exit",
    "digits_tinysaver_cascade",
    "digits_vit_ats",
    "digits_vit_int8",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``effattack`` command; returns the exit code."""
    # Read when torch loads. Threads that spin while they wait for each other took six times as long
    # beside two busy neighbours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = _parser()
    options = parser.parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="effattack",
        description="How much of an efficient model's savings can an attacker take back?",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="score victims under attacks and write a report")
    run.add_argument(
        "--victim", action="append", metavar="NAME|MODULE:FACTORY", help="default: four on digits"
    )
    run.add_argument(
        "--attack",
        action="append",
        metavar="NAME[(OPTION=VALUE, ...)]",
        help="default: all that apply",
    )
    run.add_argument("--eps", default="8/255", help="l-inf budget in [0, 1] pixels (8/255)")
    run.add_argument("--samples", type=int, default=200, metavar="N", help="images (200)")
    run.add_argument(
        "--data", metavar="PATH|MODULE:FACTORY", help="folder by class, .npz, or a callable"
    )
    run.add_argument(
        "--fit-data",
        metavar="PATH|MODULE:FACTORY",
        help="what universal attacks learn from (images of --data that are not scored)",
    )
    run.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--energy", action="store_true", help="meter energy: 25 s per attack")
    run.add_argument("--fail-below", action="append", default=[], metavar="SCORE=VALUE")
    run.add_argument("--fail-above", action="append", default=[], metavar="SCORE=VALUE")
    run.add_argument("--out", type=Path, default=Path("effattack-report"), metavar="DIR")
    run.set_defaults(handler=_run)

    listing = commands.add_parser("list", help="what can be named")
    listing.add_argument("what", choices=["victims", "attacks"])
    listing.set_defaults(handler=_list)

    report = commands.add_parser("report", help="make the report again from stored frames")
    report.add_argument("folder", type=Path, metavar="DIR")
    report.set_defaults(handler=_report)

    doctor = commands.add_parser("doctor", help="what can be measured on this machine")
    doctor.set_defaults(handler=_doctor)
    return parser


def _run(options: argparse.Namespace, console: Console) -> int:
    from effattack.attacks import attack_class
    from effattack.cells import Store
    from effattack.evaluation import Evaluation
    from effattack.limits import judge, parse_limit
    from effattack.registry import load_victim

    limits = [parse_limit(text, fail_below=True) for text in options.fail_below]
    limits += [parse_limit(text, fail_below=False) for text in options.fail_above]
    eps, device = parse_eps(options.eps), _device(options.device)
    for name in options.attack or ():
        attack_class(name)
    store = Store(options.out / "cells")
    victims = [load_victim(name).to(device) for name in options.victim or DEFAULT_VICTIMS]
    plans = [_plan(victim, eps, options) for victim in victims]
    evaluation = Evaluation.concat(_execute(plans, store, console))
    evaluation.meta["command"] = "effattack " + shlex.join(sys.argv[1:])
    evaluation.meta["data"] = options.data or "the victims' own test images"
    _write(evaluation, options.out, console)
    verdicts = judge(evaluation.scores(), evaluation.kinds, limits)
    for verdict in verdicts:
        style = "green" if verdict.passed else "red"
        console.print(verdict.message, style=style, **PLAIN)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _plan(victim: Victim, eps: float, options: argparse.Namespace) -> Plan:
    from effattack.attacks import defaults
    from effattack.data import held_out, load_data, subset
    from effattack.planning import plan

    data = load_data(options.data, victim)
    images, labels = subset(*data, options.samples)
    source = options.fit_data
    fit = load_data(source, victim) if source else held_out(*data, options.samples)
    attacks = options.attack or defaults(victim)
    seeds, energy = (options.seed,), options.energy
    return plan(victim, images, labels, attacks, eps=eps, seeds=seeds, energy=energy, fit=fit)


def _execute(plans: Sequence[Plan], store: Store, console: Console) -> list[Evaluation]:
    from effattack.evaluation import Evaluation
    from effattack.execution import execute

    with progress_bar(console, sum(plan.work for plan in plans)) as advance:
        return [Evaluation(*execute(plan, store, advance)) for plan in plans]


def _write(evaluation: Evaluation, folder: Path, console: Console) -> None:
    from effattack.reporting.html import write

    evaluation.save(folder)
    write(*evaluation.report(), folder / "report.html")
    print_scores(evaluation, console)
    console.print(f"{folder / 'report.html'}, scores.csv, samples.parquet", **PLAIN)


def _list(options: argparse.Namespace, console: Console) -> int:
    if options.what == "victims":
        from effattack.registry import registered

        rows = {name: entry.value for name, entry in sorted(registered().items())}
    else:
        from effattack.attacks import attack_class, names

        rows = {name: first_line(attack_class(name)) for name in names()}
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        console.print(f"{name:{width}}  {text}", **PLAIN)
    return 0


def first_line(thing: object) -> str:
    """The first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


def _report(options: argparse.Namespace, console: Console) -> int:
    from effattack.evaluation import Evaluation

    _write(Evaluation.load(options.folder), options.folder, console)
    return 0


def _doctor(options: argparse.Namespace, console: Console) -> int:
    from effattack.measure.doctor import diagnose

    for finding in diagnose():
        mark = "yes" if finding.ok else "no "
        style = None if finding.ok else "yellow"
        console.print(f"{mark}  {finding.what}: {finding.detail}", style=style, **PLAIN)
    return 0


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no CUDA device here (effattack doctor says why); "
            "use --device cpu"
        )
    return name
