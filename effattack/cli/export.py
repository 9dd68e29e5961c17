"""``effattack export``: a victim as an ONNX file that leaves out what the victim leaves out."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "write an early exit or a cascade as an ONNX file that leaves out what it does not need"
EXAMPLES = """examples:
  effattack export digits_cnn_early_exit --onnx exit.onnx
  effattack export mypackage.models:build --onnx model.onnx --data images/
"""
COMPARED = 64
"""Inputs that a file and its victim are compared on."""


def arguments(export: argparse.ArgumentParser) -> None:
    export.add_argument("victim", metavar="NAME|MODULE:FACTORY")
    export.add_argument("--onnx", type=Path, required=True, metavar="FILE")
    export.add_argument(
        "--data",
        metavar="PATH|MODULE:FACTORY",
        help=f"{COMPARED} inputs of it are compared; by default the victim's own",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.errors import UsageError
    from effattack.inputs.source import load_data, subset
    from effattack.results.files import replaceable, writable
    from effattack.victim import load_victim
    from effattack.victim.deployed.exporting import OPSET, export

    if options.onnx.suffix != ".onnx":
        raise UsageError(f"--onnx {options.onnx}: end its name in .onnx, by which files are known")
    path = replaceable(writable(options.onnx.parent) / options.onnx.name)
    victim = load_victim(options.victim)
    inputs, _ = subset(*load_data(options.data, victim), COMPARED)
    written = export(victim, path, inputs)
    files = shlex.join([str(options.onnx)]), shlex.join([options.victim])
    console.print(
        f"{options.onnx}: {victim.name}, ONNX opset {OPSET}, one input at a time; decisions at "
        f"{', '.join(written.gates)}\n"
        f"compared on {written.inputs} {victim.domain.nouns}: the same answers and decisions; "
        f"{_early(written.early)}\n"
        f"next: effattack run --victim {files[0]} --twin {files[1]}",
        **PLAIN,
    )
    return 0


def _early(count: int) -> str:
    if not count:
        return "none stopped early, so whether the rest is left out was not seen"
    return f"{count} stopped early, and nothing behind ran"
