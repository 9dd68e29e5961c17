"""``effattack run``: score victims under attacks and write a report."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli import executor_options, judging, output, replaying, sweep_options
from effattack.cli.report import check_free, write
from effattack.cli.terminal import PLAIN, progress_bar
from effattack.streams import shown

if TYPE_CHECKING:
    from effattack.cells.plan import Plan

HELP = "score victims under attacks and write a report"
EXAMPLES = """examples:
  effattack run
  effattack run --victim mypackage.models:build --data images/ --fail-below savings_retained=0.6
  effattack run --victim digits_vit_ats --attack Slowdown --attack DeSparsify --eps 4/255
  effattack run --victim cbf_early_gru --threat linf:.2sd
  effattack run --attack "Slowdown(threat='l2:1.0')" --attack "UniversalSlowdown(threat='patch:16')"
  effattack run --victim mypackage.models:build --data images/ --save v1
  effattack run --victim mypackage.models:build --data images/ --compare v1 --quiet
  effattack run sweep.toml --workers
  effattack run --victim mypackage.models:build --replay effattack-report/corpus
"""


def arguments(run: argparse.ArgumentParser) -> None:
    sweep_options.arguments(run)
    executor_options.arguments(run)
    judging.arguments(run)
    replaying.arguments(run)
    run.add_argument("--out", type=Path, default=Path("effattack-report"), metavar="DIR")
    run.add_argument("--dry-run", action="store_true", help="show what would be run")
    run.add_argument("--verify", action="store_true", help="run damaged cells again")
    run.add_argument("--fresh", action="store_true", help="run all again, finished cells too")
    output.arguments(run)


def run(options: argparse.Namespace, console: Console) -> int:
    if options.replay:
        return replaying.run(options, console)
    return _attack(options, console)


def _attack(options: argparse.Namespace, console: Console) -> int:
    from effattack.cells.store import Store
    from effattack.inputs.generated import called
    from effattack.runs import run as runs
    from effattack.runs.certifying import certified
    from effattack.runs.keeping import keep_worst
    from effattack.runs.scheduling import discard_damaged, finished, overview

    judge = judging.Judge.of(options)
    bar = progress_bar(console)
    sweep, *beside = sweep_options.sweeps_of(options)
    executor = executor_options.executor_of(options, bar.step)
    executor.check(sweep.device, sweep.timed > 0)
    store = Store(options.out / "cells")
    check_free(options.out)
    absent = sweep_options.absent(options, console)
    planned = {each: each.plan(executor.timeout, absent) for each in (sweep, *beside)}
    plans = [plan for own in planned.values() for plan in own]
    if options.fresh and not options.dry_run:
        for spec in finished(plans, store, executor):
            store.remove(spec)
    if options.verify:
        for spec in discard_damaged(plans, store, executor):
            console.print(f"damaged, to be run again: {store.path(spec)}", **PLAIN)
    _expect_audited(plans, options.by)
    todo, lines = overview(plans, store)
    for line in lines:
        console.print(line, **PLAIN)
    if options.dry_run:
        return 0
    with bar.of(todo):
        evaluation, failures = runs.run(plans, store, executor, runs.go_on, bar.advance)
    for each, own in planned.items():
        if each.certify:
            evaluation = certified(evaluation, own, store, each.certify, again=options.fresh)
    if options.by:
        evaluation = evaluation.judged_by(options.by)
    told = keep_worst(plans, store, evaluation, options.out, options.corpus_mb)
    evaluation.meta["notes"] += told
    evaluation.meta["command"] = shown("effattack " + shlex.join(sys.argv[1:]))
    data = called(sweep.data) if sweep.data else "the victims' own test inputs"
    evaluation.meta["data"] = shown(data)
    evaluation.meta["limits"] = judge.results(evaluation)
    write(evaluation, options.out, console, options.verbose)
    if failures:
        raise runs.failed(failures)
    page = options.out / "report.html"
    code = judge.judge(evaluation, options, console, page)
    console.print(f"next: open {page}; {next_step(options, judge, code)}", **PLAIN)
    return code


def next_step(options: argparse.Namespace, judge: judging.Judge, code: int) -> str:
    """What somebody would do now: the last line of a run that was scored."""
    if code:
        return "docs/red.md leads from red to green"
    if options.save:
        return f"later, --compare {options.save}"
    if judge.limits or judge.baseline:
        return "--save NAME keeps these scores"
    return "in CI --fail-below savings_retained=0.6"


def _expect_audited(plans: Sequence[Plan], by: str | None) -> None:
    """Refuse to judge victims by a count that nobody audits."""
    from effattack.results.currency import expect_audited

    for plan in plans if by else ():
        audited = {name: count["audited"] for name, count in plan.about.counts.items()}
        expect_audited(plan.about.name, str(by), audited)
