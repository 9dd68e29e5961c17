"""``effattack harden``: a copy of a victim that keeps more of its savings, and what that cost."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from effattack.budgets import parse_eps
from effattack.cli.terminal import PLAIN
from effattack.errors import HardeningError, UsageError

if TYPE_CHECKING:
    from effattack.hardening import Card

HELP = "train a victim to keep its savings under attack, and say what that cost"
EXAMPLES = """examples:
  effattack harden mypackage.models:build --data train/ --threat 4/255 --out hardened
  effattack harden mypackage.models:build --data train/ --threat l2:1.0 --method both --out hardened
  effattack harden mypackage.models:build --data train/ --threat 4/255 --train-at 6/255 --out h
  effattack harden mypackage.models:build --data train/ --threat 4/255 --method thresholds --out h
  effattack harden mypackage.models:build --data train/ --threat 4/255 \\
      --method "groups(rate=0.05, steps=5)" --epochs 60 --out hardened
exit code 1: it lost more accuracy than allowed, or won nothing; the original stays
"""
POINTS = 100


def arguments(harden: argparse.ArgumentParser) -> None:
    harden.add_argument("victim", metavar="NAME|MODULE:FACTORY")
    harden.add_argument(
        "--data",
        required=True,
        metavar="PATH|MODULE:FACTORY",
        help="what is trained on: never what is scored; a folder by class, .npz, or a callable",
    )
    harden.add_argument(
        "--heldout",
        metavar="PATH|MODULE:FACTORY",
        help="what chooses thresholds and judges (a fifth of --data, which is not trained on)",
    )
    harden.add_argument(
        "--threat",
        required=True,
        metavar="EPS|NAME:SIZE",
        help="what is to be withstood: 4/255, l2:1.0",
    )
    harden.add_argument(
        "--train-at",
        metavar="EPS|NAME:SIZE",
        help="another budget to train at; half as much again helps at --threat",
    )
    harden.add_argument(
        "--method",
        default="answers",
        metavar="NAME[(OPTION=VALUE, ...)]",
        help="answers, hinge, both, noise, bounds, groups, thresholds (answers)",
    )
    harden.add_argument("--epochs", type=int, default=30, help="passes over the data (30)")
    harden.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate (2e-3)")
    harden.add_argument("--batch-size", type=int, default=64, help="inputs of one step (64)")
    harden.add_argument("--seed", type=int, default=0, help="(0)")
    harden.add_argument(
        "--allow",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="accuracy that may be lost on held-out inputs, in points (1)",
    )
    harden.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(cpu)")
    harden.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="weights and card; the same command goes on where it was interrupted",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.hardening import Schedule, Terms, harden, save
    from effattack.inputs.source import load_data
    from effattack.results.files import writable
    from effattack.victim import load_victim

    victim = load_victim(options.victim).to(options.device)
    inputs, labels = load_data(options.data, victim)
    heldout = load_data(options.heldout, victim) if options.heldout else None
    schedule = Schedule(options.epochs, options.rate, options.batch_size, options.seed)
    if not 0 <= options.allow < POINTS:
        raise UsageError(f"--allow {options.allow:g}: give points of accuracy, from 0 to below 100")
    terms = Terms(allowed=options.allow / POINTS)
    try:
        hardened = harden(
            victim,
            inputs,
            labels,
            _budget(options.threat),
            options.method,
            train_at=options.train_at and _budget(options.train_at),
            schedule=schedule,
            terms=terms,
            heldout=heldout,
            checkpoints=writable(options.out),
            told=lambda epoch: console.print(str(epoch), **PLAIN),
        )
    except HardeningError as error:
        _show(error.hardened.card, console)
        raise
    save(hardened, options.out)
    _show(hardened.card, console)
    console.print(_next(options, bool(victim.data)), **PLAIN)
    return 0


def _budget(text: str) -> str | float:
    return text if ":" in text else parse_eps(text)


def _show(card: Card, console: Console) -> None:
    told = f"{card.victim} at {card.threat}, on {card.heldout} held-out inputs"
    console.print(f"{told}, {card.attacked} of them attacked", **PLAIN)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for row in card.rows():
        table.add_row(*row)
    console.print(table)
    for note in card.notes:
        console.print(f"note: {note}", **PLAIN)


def _next(options: argparse.Namespace, own_data: bool) -> str:
    """What was written, how to use it, and the command that judges it."""
    module, _, factory = options.victim.partition(":")
    where = module if factory else "mine"
    lines = ["from effattack.hardening import load"]
    if not factory:
        lines.append("from effattack.victim import load_victim")
    made = f"{factory}()" if factory else f"load_victim({module!r})"
    lines.append(f"def hardened(): return load({made}, {str(options.out)!r})")
    budget = "--threat" if ":" in options.threat else "--eps"
    data, told = ("", "") if own_data else ("--data TEST ", " (TEST: inputs that nothing here saw)")
    return "\n".join(
        [
            f"{options.out}: weights.safetensors, card.json, card.md",
            f"to use it, put into {where}:",
            *(f"  {line}" for line in lines),
            f"next: effattack run --victim {shlex.quote(f'{where}:hardened')} {data}"
            f"{budget} {options.threat}{told}",
        ]
    )
