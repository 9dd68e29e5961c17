"""``effattack verify``: whether records hold."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli.terminal import PLAIN
from effattack.errors import EffattackError, RecordError
from effattack.reporting import words

if TYPE_CHECKING:
    from effattack.results.records.record import Record
    from effattack.runs.records.bench import Bench

HELP = "count records again, and say whether they hold"
EXAMPLES = """examples:
  effattack verify reports/records/digits_vit_ats.linf-8-255.record
  effattack verify reports/records/*.record
  effattack verify new.record --against reports/records/digits_vit_ats.linf-8-255.record
  effattack verify mine.record --victim mypackage.models:build --data images/
  effattack verify shipped.record --victim model.onnx
"""


def arguments(verify: argparse.ArgumentParser) -> None:
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="records")
    verify.add_argument(
        "--victim", metavar="NAME|MODULE:FACTORY",
        help="the victim, where the record names none that is registered here",
    )  # fmt: skip
    verify.add_argument("--twin", metavar="NAME|MODULE:FACTORY", help="its twin, likewise")
    verify.add_argument(
        "--data", metavar="PATH|MODULE:FACTORY",
        help="the clean inputs, where they are not the victim's own",
    )  # fmt: skip
    verify.add_argument(
        "--against", type=Path, metavar="FILE",
        help="the record whose place they are to take: fail unless they are better",
    )  # fmt: skip


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.results.records.record import Record
    from effattack.runs.records.bench import Bench

    started, codes = time.monotonic(), []
    old = Record.load(options.against) if options.against else None
    bench = Bench(options.victim, options.twin, options.data)
    for file in options.files:
        said, code = _verified(file, bench, old)
        console.print(said, **PLAIN)
        codes.append(code)
    took = time.monotonic() - started
    console.print(f"{codes.count(0)} of {len(codes)} hold ({took:.0f} s)", **PLAIN)
    return max(codes)


def _verified(file: Path, bench: Bench, old: Record | None) -> tuple[str, int]:
    """What is said of a file, and the exit code."""
    from effattack.results.records.record import Record
    from effattack.runs.records.checking import expect_better, verify

    try:
        record = Record.load(file)
    except EffattackError as error:
        return str(error), error.exit_code
    try:
        found = verify(record, bench)
    except EffattackError as error:
        verdict = "does not hold" if isinstance(error, RecordError) else "was not verified"
        return f"{file} {verdict}: {error}", error.exit_code
    success = words.percent(found.success)
    said = "; ".join([f"{file} holds: attack success {success} at {record.threat}", *found.remarks])
    try:
        if old is not None:
            expect_better(record, old)
            said += f"; the other's is {words.percent(old.rows.success())}"
    except RecordError as error:
        return f"{said}; {error}", error.exit_code
    return said, 0
