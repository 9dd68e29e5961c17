"""What ``effattack run`` scores: a sweep, from a file or from options."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from effattack.budgets import parse_eps
from effattack.cli.terminal import PLAIN
from effattack.errors import MissingPackage, UsageError

if TYPE_CHECKING:
    from effattack.runs.sweep import Absent, Sweep

DEFAULT_IMAGES = (
    "digits_cnn_early_exit",
    "digits_tinysaver_cascade",
    "digits_vit_ats",
    "digits_vit_int8",
)
DEFAULT_VICTIMS = (*DEFAULT_IMAGES, "cbf_early_gru")
"""With data or a budget of one's own, those of images alone."""

BRACKET: dict[str, Any] = {
    "victims": ("exam_exit",),
    "attacks": ("AutoSlow",),
    "budgets": ("linf:10/255",),
    "samples": 50,
    "timed": 0,
    "certify": "exact",
}
"""What a run without options shows beside its victims: one victim and threat of which an attack and
a certificate say the same, for some seconds."""


def arguments(run: argparse.ArgumentParser) -> None:
    run.add_argument("sweep", nargs="?", type=Path, metavar="SWEEP.toml", help="what to score")
    what = run.add_argument_group("what to score, without a sweep file")
    what.add_argument(
        "--victim",
        action="append",
        metavar="NAME|MODULE:FACTORY|FILE.onnx",
        help="default: four on digits, one on series",
    )
    entry_arguments(what)
    what.add_argument(
        "--attack",
        action="append",
        metavar="NAME|MODULE:CLASS[(OPTION=VALUE, ...)]",
        help="shifts: all natural shifts of the inputs (all that apply)",
    )
    what.add_argument(
        "--eps",
        help="l-inf budget in the unit of the inputs, of images in [0, 1] pixels (8/255; of series "
        "a tenth of their deviation)",
    )
    what.add_argument(
        "--threat",
        action="append",
        metavar="NAME:SIZE|MODULE:CLASS(...)",
        help="what may be changed: linf:.1sd, l2:1.0, patch:16; effattack list threats",
    )
    what.add_argument("--samples", type=int, metavar="N", help="inputs (200)")
    what.add_argument(
        "--data", metavar="PATH|MODULE:FACTORY", help="folder by class, .npz, or a callable"
    )
    what.add_argument(
        "--fit-data",
        metavar="PATH|MODULE:FACTORY",
        help="what universal attacks learn from (inputs of --data that are not scored)",
    )
    what.add_argument("--device", choices=["cpu", "cuda"], help="(cpu)")
    what.add_argument("--seed", type=int, help="(0)")
    what.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="inputs per timed call: your deployment's; all else is scored one by one (1)",
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
    what.add_argument(
        "--certify",
        metavar="KIND",
        help="a certificate beside the attacks: auto, or a kind of effattack certify (none)",
    )
    run.add_argument("--skip-bad", action="store_true", help="pass over images that cannot be read")


def entry_arguments(parser: argparse._ActionsContainer) -> None:
    """What stands beside the name of a victim."""
    parser.add_argument(
        "--twin",
        metavar="NAME|MODULE:FACTORY",
        help="the victim that FILE.onnx was exported from: attacks see it, the file is judged",
    )
    parser.add_argument(
        "--through",
        metavar="STEP(...),...",
        help="pre-processing inside the victim's door, as 'resize(256),center_crop(224),jpeg(90)': "
        "the attacker owns the file",
    )


def sweeps_of(options: argparse.Namespace) -> list[Sweep]:
    """The sweep of the file, or of the options; where nothing is asked for, a bracket beside it."""
    from effattack.runs.sweep import Sweep

    judged = ("fail_below", "fail_above", "save", "compare", "by")
    asked = options.sweep or _given(options) or any(getattr(options, key) for key in judged)
    return [sweep_of(options), *([] if asked else [Sweep(**BRACKET)])]


def sweep_of(options: argparse.Namespace) -> Sweep:
    """The sweep of the file, or of the options."""
    from effattack.runs.sweep import Sweep

    given = _given(options)
    if options.sweep is None:
        own = options.data or options.eps or options.threat
        victims = given.pop("victims", DEFAULT_IMAGES if own else DEFAULT_VICTIMS)
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


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say of a sweep."""
    given = {
        "victims": options.victim and tuple(options.victim),
        "twin": options.twin,
        "through": options.through,
        "attacks": options.attack and tuple(dict.fromkeys(options.attack)),
        "budgets": _budgets(options),
        "samples": options.samples,
        "data": options.data,
        "fit": options.fit_data,
        "device": options.device,
        "seeds": None if options.seed is None else (options.seed,),
        "batch_size": options.batch_size,
        "seconds": options.timing,
        "energy": options.energy,
        "certify": options.certify,
    }
    return {key: value for key, value in given.items() if value is not None}


def _budgets(options: argparse.Namespace) -> tuple[float | str, ...] | None:
    """Those of ``--eps`` and of every ``--threat``, each once."""
    threats = dict.fromkeys(options.threat or ())
    sizes = [parse_eps(options.eps)] if options.eps else []
    return (*sizes, *threats) or None


def absent(options: argparse.Namespace, console: Console) -> Absent | None:
    """What is done about a victim whose package is missing: a default one is left out."""

    def tell(name: str, error: MissingPackage) -> None:
        console.print(f"{name} is left out: {error}", **PLAIN)

    return None if options.victim or options.sweep else tell
