"""``effattack run --replay``: stored worst inputs, judged by forward passes alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli import sweep_options
from effattack.cli.judging import Judge
from effattack.cli.terminal import PLAIN, Screen, print_scores
from effattack.errors import UsageError
from effattack.registry import VICTIMS, entries
from effattack.results.limits import REPLAYED, expect_untimed

if TYPE_CHECKING:
    from effattack.inputs.corpus import Corpus

USED = {
    *("replay", "sweep", "victim", "twin", "through", "device", "baselines"),
    *("fail_below", "fail_above", "by", "score", "quiet", "verbose", "json"),
}
"""Options of ``effattack run`` that a replay has a use for."""


def arguments(run: argparse.ArgumentParser) -> None:
    what = run.add_argument_group("stored worst inputs, in place of attacks")
    what.add_argument(
        "--replay",
        type=Path,
        metavar="CORPUS",
        help="judge the victims on the worst inputs of an earlier run, a file or a folder of "
        "them, by forward passes alone; nothing is attacked, timed or written",
    )
    what.add_argument(
        "--corpus-mb",
        type=float,
        default=2.0,
        metavar="MB",
        help="size of a corpus that a run keeps in DIR/corpus, at most; 0: none (2)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    from effattack.inputs.corpus import read_corpora
    from effattack.results.evaluation import Evaluation
    from effattack.runs.choosing import chosen
    from effattack.runs.executors import check_local
    from effattack.runs.replay import replay

    _expect_used(options)
    judge = Judge.of(options)
    expect_untimed(judge.limits)
    corpora = read_corpora(options.replay)
    if options.sweep is None and not options.victim:
        options.victim = _registered(corpora)
    sweep = sweep_options.sweep_of(options)
    check_local(sweep.device)
    parts = []
    for name in sweep.victims:
        victim = sweep.victim(name).to(sweep.device)
        parts.append(replay(victim, chosen(victim, corpora), options.by))
    evaluation = Evaluation.concat(parts)
    print_scores(evaluation, console, options.verbose)
    for told in evaluation.meta["replayed"]:
        console.print(told, **PLAIN)
    code = judge.judge(evaluation, options, console, page=None)
    if code == 0:
        Screen(stderr=options.json).print(REPLAYED, **PLAIN)
    return code


def _expect_used(options: argparse.Namespace) -> None:
    """Refuse options that a replay has no use for, before anything runs.

    Raises:
        UsageError: naming them.
    """
    run = options.parsers()["run"]
    given = {key for key, value in vars(options).items() if value != run.get_default(key)}
    unused = [
        action.option_strings[0]
        for action in run._actions
        if action.option_strings and action.dest in given - USED
    ]
    if unused:
        raise UsageError(
            f"--replay takes inputs and budgets from the corpus, attacks nothing and writes "
            f"nothing: leave {', '.join(unused)} out"
        )


def _registered(corpora: list[Corpus]) -> list[str]:
    """The registered victims among those that were recorded.

    A file never names what is imported.
    """
    recorded = dict.fromkeys(corpus.about.victim for corpus in corpora)
    known = entries(VICTIMS)
    if strange := [name for name in recorded if name not in known]:
        raise UsageError(
            f"the corpus holds inputs of {', '.join(strange)}: name what is judged on them with "
            "--victim"
        )
    return [*recorded]
