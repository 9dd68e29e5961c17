"""``effattack calibrate``: false-alarm rate and power of the latency protocol on this machine."""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli.sweep_options import entry_arguments
from effattack.cli.terminal import PLAIN, progress_bar

if TYPE_CHECKING:
    from effattack.measure.calibration import Power, Trial

HELP = "false alarms and smallest detectable slowdown of the latency protocol here"
EXAMPLES = """examples:
  effattack calibrate --trials 100 --seconds 10 --out power.md
  effattack calibrate --victim mypackage.models:build --data images/ --load 2
"""
SLOWDOWNS = [0.0, 3.0, 5.0, 10.0, 20.0]


def arguments(calibrate: argparse.ArgumentParser) -> None:
    calibrate.add_argument(
        "--victim", default="digits_cnn_early_exit", metavar="NAME|MODULE:FACTORY|FILE.onnx"
    )
    entry_arguments(calibrate)
    calibrate.add_argument(
        "--slowdown", action="append", type=float, metavar="PERCENT",
        help="injected; 0 counts false alarms (0 3 5 10 20)",
    )  # fmt: skip
    calibrate.add_argument("--trials", type=int, default=20, metavar="N", help="of each (20)")
    calibrate.add_argument("--seconds", type=float, default=5.0, help="of one trial (5)")
    calibrate.add_argument("--images", type=int, default=16, metavar="N", help="timed (16)")
    calibrate.add_argument("--load", type=int, default=0, metavar="N", help="busy processes (0)")
    calibrate.add_argument("--clock", choices=["wall", "cuda_event", "cpu_time"], default="wall")
    calibrate.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    calibrate.add_argument("--data", metavar="PATH|MODULE:FACTORY")
    calibrate.add_argument(
        "--out", type=Path, metavar="FILE.md", help="also writes FILE.csv, one row per trial"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.inputs.source import load_data, subset
    from effattack.measure.calibration import calibrate, power_table
    from effattack.measure.clocks import clock_named
    from effattack.measure.environment import environment
    from effattack.measure.load import competing
    from effattack.results.files import replaceable, writable
    from effattack.runs.executors import check_local
    from effattack.victim import load_victim

    check_local(options.device)
    device = options.device
    clock = clock_named(options.clock, device)
    if options.out is not None:
        writable(options.out.parent)
        replaceable(options.out)
        replaceable(options.out.with_suffix(".csv"))
    victim = load_victim(options.victim, options.twin or "", options.through or "").to(device)
    images, _ = subset(*load_data(options.data, victim), options.images)
    slowdowns = [percent / 100 for percent in options.slowdown or SLOWDOWNS]
    total, bar = len(slowdowns) * options.trials * 2, progress_bar(console)
    with (
        competing(options.load),
        bar.of(total),
        _rows(options.out) as write,
    ):

        def finished(trial: Trial) -> None:
            bar.advance(f"{trial.slowdown:.0%} {trial.order}", 1)
            write(trial)

        trials = calibrate(
            victim, images, clock, slowdowns=slowdowns, trials=options.trials,
            seconds=options.seconds, finished=finished,
        )  # fmt: skip
        where = environment(device)
    table = power_table(trials)
    text = _header(options, victim.name, where) + _markdown(table)
    console.print(text, **PLAIN)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


@contextmanager
def _rows(out: Path | None) -> Iterator[Callable[[Sequence[object]], object]]:
    """Writes each trial to the CSV file at once, so that an interruption loses none."""
    from effattack.measure.calibration import Trial

    if out is None:
        yield lambda trial: None
        return
    with out.with_suffix(".csv").open("w", buffering=1, encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(Trial._fields)
        yield rows.writerow


def _header(options: argparse.Namespace, victim: str, where: dict) -> str:
    command = "effattack " + shlex.join(sys.argv[1:])
    return (
        f"`{command}`\n\n{victim} on {where['device_name']}, {where['cores']} cores, "
        f"{where['threads']} threads, torch {where['torch']}, beside {options.load} busy "
        f"processes (load average {where['load_average']:.1f}); {options.images} images, clock "
        f"{options.clock}.\n\n"
    )


def _markdown(table: list[Power]) -> str:
    from effattack.measure.calibration import SURE, smallest_detectable

    lines = [
        "| slowdown | order | trials | found | share | 95 % interval | measured | 5 to 95 % | s |",
        "|---:|---|---:|---:|---:|---|---:|---:|---:|",
    ]
    for row in table:
        share = row.share
        lines.append(
            f"| {row.slowdown:.0%} | {row.order} | {row.trials} | {row.found} | {share.value:.1%} "
            f"| {share.low:.1%} to {share.high:.1%} | ×{row.ratio:.3f} | {row.spread:.3f} "
            f"| {row.seconds:.1f} |"
        )
    smallest = smallest_detectable(table)
    said = "none of these" if smallest is None else f"{smallest:.0%}"
    lines += ["", f"Smallest slowdown found in at least {SURE:.0%} of the ABBA trials: {said}."]
    return "\n".join(lines)
