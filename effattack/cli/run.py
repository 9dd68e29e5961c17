"""``effattack run``: score victims under attacks and write a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.budgets import parse_eps
from effattack.cli.report import write
from effattack.errors import UsageError
from effattack.terminal import PLAIN, progress_bar

if TYPE_CHECKING:
    from effattack.cells import Store
    from effattack.evaluation import Evaluation
    from effattack.planning import Plan
    from effattack.victim import Victim

HELP = "score victims under attacks and write a report"
DEFAULT_VICTIMS = (
    "digits_cnn_early_exit",
    "digits_tinysaver_cascade",
    "digits_vit_ats",
    "digits_vit_int8",
)


def arguments(run: argparse.ArgumentParser) -> None:
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


def run(options: argparse.Namespace, console: Console) -> int:
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
    write(evaluation, options.out, console)
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


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "--device cuda: torch sees no CUDA device here (effattack doctor says why); "
            "use --device cpu"
        )
    return name
