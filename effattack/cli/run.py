"""``effattack run``: score victims under attacks and write a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.budgets import parse_eps
from effattack.cli.report import write
from effattack.errors import UsageError
from effattack.terminal import PLAIN, progress_bar

if TYPE_CHECKING:
    from effattack.executors import Executor
    from effattack.sweep import Sweep

HELP = "score victims under attacks and write a report"
DEFAULT_VICTIMS = (
    "digits_cnn_early_exit",
    "digits_tinysaver_cascade",
    "digits_vit_ats",
    "digits_vit_int8",
)


def arguments(run: argparse.ArgumentParser) -> None:
    run.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.toml", help="what to score")
    what = run.add_argument_group("what to score, without a sweep file")
    what.add_argument(
        "--victim", action="append", metavar="NAME|MODULE:FACTORY", help="default: four on digits"
    )
    what.add_argument(
        "--attack",
        action="append",
        metavar="NAME[(OPTION=VALUE, ...)]",
        help="default: all that apply",
    )
    what.add_argument("--eps", help="l-inf budget in [0, 1] pixels (8/255)")
    what.add_argument("--samples", type=int, metavar="N", help="images (200)")
    what.add_argument(
        "--data", metavar="PATH|MODULE:FACTORY", help="folder by class, .npz, or a callable"
    )
    what.add_argument(
        "--fit-data",
        metavar="PATH|MODULE:FACTORY",
        help="what universal attacks learn from (images of --data that are not scored)",
    )
    what.add_argument("--device", choices=["cpu", "cuda"], help="(cpu)")
    what.add_argument("--seed", type=int, help="(0)")
    what.add_argument(
        "--timing",
        type=float,
        metavar="SECONDS",
        help="per attack, at least; effattack calibrate says what they buy (three passes)",
    )
    what.add_argument(
        "--energy", action="store_true", default=None, help="meter energy: 30 s per attack"
    )
    run.add_argument("--skip-bad", action="store_true", help="pass over unreadable images")
    where = run.add_argument_group("where to run it")
    where.add_argument(
        "--workers",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="local processes; without N, one per GPU, or one per core",
    )
    where.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="a Ray cluster; without ADDRESS, one on this machine alone",
    )
    where.add_argument(
        "--gpus", type=float, metavar="N", help="GPUs of a cell on Ray; below 1 without timing (1)"
    )
    where.add_argument("--timeout", type=float, metavar="SECONDS", help="of a cell")
    where.add_argument("--out", type=Path, default=Path("effattack-report"), metavar="DIR")
    run.add_argument("--dry-run", action="store_true", help="show what would be run")
    run.add_argument("--verify", action="store_true", help="run damaged cells again")
    run.add_argument("--fail-below", action="append", default=[], metavar="SCORE=VALUE")
    run.add_argument("--fail-above", action="append", default=[], metavar="SCORE=VALUE")


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.limits import judge, parse_limit
    from effattack.overview import overview
    from effattack.scheduling import discard_damaged
    from effattack.store import Store
    from effattack.sweep import complete, failed

    limits = [parse_limit(text, fail_below=True) for text in options.fail_below]
    limits += [parse_limit(text, fail_below=False) for text in options.fail_above]
    sweep, executor = _sweep(options), _executor(options)
    executor.check(sweep.device, sweep.timed > 0)
    store = Store(options.out / "cells")
    plans = sweep.plan()
    if options.verify:
        for spec in discard_damaged(plans, store, executor):
            console.print(f"damaged, to be run again: {store.path(spec)}", **PLAIN)
    todo, lines = overview(plans, store)
    for line in lines:
        console.print(line, **PLAIN)
    if options.dry_run:
        return 0
    with progress_bar(console, todo) as advance:
        evaluation, failures = complete(plans, store, executor, advance)
    evaluation.meta["command"] = "effattack " + shlex.join(sys.argv[1:])
    evaluation.meta["data"] = sweep.data or "the victims' own test images"
    write(evaluation, options.out, console)
    if failures:
        raise failed(failures)
    verdicts = judge(evaluation.scores(), evaluation.kinds, limits)
    for verdict in verdicts:
        style = "green" if verdict.passed else "red"
        console.print(verdict.message, style=style, **PLAIN)
    return 0 if all(verdict.passed for verdict in verdicts) else 1


def _sweep(options: argparse.Namespace) -> Sweep:
    """What to score: from a file, or from options."""
    from effattack.sweep import Sweep

    given = {
        "victims": options.victim and tuple(options.victim),
        "attacks": options.attack and tuple(dict.fromkeys(options.attack)),
        "budgets": options.eps and (parse_eps(options.eps),),
        "samples": options.samples,
        "data": options.data,
        "fit": options.fit_data,
        "device": options.device,
        "seeds": None if options.seed is None else (options.seed,),
        "seconds": options.timing,
        "energy": options.energy,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if options.sweep is None:
        sweep = Sweep(**{"victims": DEFAULT_VICTIMS, "samples": 200, **given})
    elif given:
        raise UsageError(
            f"{options.sweep} says what to score, and so do options ({', '.join(given)}): write "
            "them into the file"
        )
    else:
        sweep = Sweep.load(options.sweep)
    if options.skip_bad:
        sweep = replace(sweep, skip_bad=True)
    return sweep


def _executor(options: argparse.Namespace) -> Executor:
    """Where to run it."""
    if options.workers is not None and options.ray is not None:
        raise UsageError("--workers and --ray: give one of them")
    if options.ray is not None:
        from effattack.executors.ray import Ray

        address = None if options.ray == "local" else options.ray
        return Ray(address, gpus=options.gpus, timeout=options.timeout)
    if options.gpus is not None:
        raise UsageError("--gpus is for --ray; local workers take one GPU each")
    if options.workers is not None:
        from effattack.executors.workers import Workers

        return Workers(options.workers or None, options.timeout)
    if options.timeout is not None:
        raise UsageError("--timeout needs a process that can be ended: add --workers 1")
    from effattack.executors.in_process import InProcess

    return InProcess()
