"""``effattack export``: a victim as an ONNX file that leaves out what the victim leaves out, or the
worst prompts of a generator as a file that benchmarks of servers read."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from rich.console import Console

from effattack.cli.terminal import PLAIN

HELP = "write a victim as an ONNX file, or the worst prompts for a benchmark of servers"
EXAMPLES = """examples:
  effattack export digits_cnn_early_exit --onnx exit.onnx
  effattack export mypackage.models:build --onnx model.onnx --data images/
  effattack export sums_lm --prompts worst.jsonl --corpus effattack-report/corpus --format vllm
"""
COMPARED = 64
"""Inputs that a file and its victim are compared on."""


def arguments(export: argparse.ArgumentParser) -> None:
    export.add_argument("victim", metavar="NAME|MODULE:FACTORY")
    what = export.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--onnx",
        type=Path,
        metavar="FILE",
        help="an early exit or a cascade that leaves out what it does not need",
    )
    what.add_argument(
        "--prompts", type=Path, metavar="FILE", help="the attacked prompts of a corpus, a line each"
    )
    export.add_argument(
        "--corpus", type=Path, metavar="CORPUS", help="of an earlier run: a file or a folder"
    )
    export.add_argument(
        "--format",
        choices=("vllm", "aiperf", "otel"),
        default="vllm",
        help="who reads the prompts: vllm bench serve, AIPerf, or what reads OpenTelemetry's names",
    )
    export.add_argument(
        "--data",
        metavar="PATH|MODULE:FACTORY",
        help=f"{COMPARED} inputs of it are compared; by default the victim's own",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    return _onnx(options, console) if options.onnx else _prompts(options, console)


def _prompts(options: argparse.Namespace, console: Console) -> int:
    from effattack.errors import UsageError
    from effattack.inputs.corpus import read_corpora
    from effattack.results.files import replaceable, replaced, writable
    from effattack.runs.prompts import as_lines, worst_prompts
    from effattack.victim import load_victim

    if options.corpus is None or options.data is not None:
        raise UsageError(
            "--prompts writes those of a corpus: name it with --corpus, and leave --data out; "
            "effattack run --out DIR keeps one in DIR/corpus"
        )
    path = replaceable(writable(options.prompts.parent) / options.prompts.name)
    victim = load_victim(options.victim)
    prompts = worst_prompts(victim, read_corpora(options.corpus))
    replaced(path, as_lines(prompts, options.format).encode())
    capped, written = sum(one.capped for one in prompts), sum(one.output_tokens for one in prompts)
    console.print(
        f"{options.prompts}: {len(prompts)} worst prompts, for {options.format}; {victim.name} "
        f"writes {written / len(prompts):.1f} tokens after one, {capped} of them up to its cap of "
        f"{prompts[0].cap}",
        **PLAIN,
    )
    return 0


def _onnx(options: argparse.Namespace, console: Console) -> int:
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
