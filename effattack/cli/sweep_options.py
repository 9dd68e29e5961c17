"""What ``effattack run`` scores: a sweep, from a file or from options."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli.terminal import PLAIN
from effattack.errors import MissingPackage, UsageError

if TYPE_CHECKING:
    from effattack.runs.sweep import Sweep

DEFAULT_VICTIMS = (
    "digits_cnn_early_exit",
    "digits_tinysaver_cascade",
    "digits_vit_ats",
    "digits_vit_int8",
)
DEFAULT_SERIES = ("cbf_early_gru",)
"""Scored beside them on their own data, which no image replaces."""


def arguments(run: argparse.ArgumentParser) -> None:
    run.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.toml", help="what to score")
    what = run.add_argument_group("what to score, without a sweep file")
    what.add_argument(
        "--victim",
        action="append",
        metavar="NAME|MODULE:FACTORY",
        help="default: four on digits, one on series",
    )
    what.add_argument(
        "--attack",
        action="append",
        metavar="NAME[(OPTION=VALUE, ...)]",
        help="default: all that apply",
    )
    what.add_argument(
        "--eps", metavar="SIZE|THREAT", help="l-inf budget, or another: l2:1.0 (of images 8/255)"
    )
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
        "--batch-size",
        type=int,
        metavar="N",
        help="images per timed call: your deployment's; all else is scored image by image (1)",
    )
    what.add_argument(
        "--timing",
        type=float,
        metavar="SECONDS",
        help="per attack, at least; effattack calibrate says what they buy (three passes)",
    )
    what.add_argument(
        "--energy", action="store_true", default=None, help="meter energy: 30 s per attack"
    )
    run.add_argument("--skip-bad", action="store_true", help="pass over images that cannot be read")


def sweep_of(options: argparse.Namespace, console: Console) -> Sweep:
    """The sweep of the file, or of the options; says which default victims are left out."""
    from effattack.runs.sweep import Sweep
    from effattack.runs.sweepfile import read_budget

    given = {
        "victims": options.victim and tuple(options.victim),
        "attacks": options.attack and tuple(dict.fromkeys(options.attack)),
        "budgets": options.eps and (read_budget(options.eps),),
        "samples": options.samples,
        "data": options.data,
        "fit": options.fit_data,
        "device": options.device,
        "seeds": None if options.seed is None else (options.seed,),
        "batch_size": options.batch_size,
        "seconds": options.timing,
        "energy": options.energy,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if options.sweep is None:
        victims = given.pop("victims", None) or _default_victims(options.data, console)
        sweep = Sweep(**{"victims": victims, "samples": 200, **given})
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


def _default_victims(data: str | None, console: Console) -> tuple[str, ...]:
    """Those whose packages are there."""
    from effattack.victim import load_victim

    found = []
    for name in (*DEFAULT_VICTIMS, *(() if data else DEFAULT_SERIES)):
        try:
            load_victim(name)
            found.append(name)
        except MissingPackage as error:
            console.print(f"{name} is left out: {error}", **PLAIN)
    return tuple(found)
