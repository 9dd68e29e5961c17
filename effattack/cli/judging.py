"""What makes ``effattack run`` fail: limits, and what got worse since a baseline."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from effattack.cli import output
from effattack.cli.terminal import PLAIN
from effattack.errors import MeasurementError
from effattack.results.baseline_paths import FOLDER, path_of
from effattack.results.baselines import Baseline
from effattack.results.limits import Limit, judge, parse_limit, results

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation


def arguments(run: argparse.ArgumentParser) -> None:
    what = run.add_argument_group(
        "what makes it fail",
        "limits judge the union: per image, the worst of every row inside the budget",
    )
    what.add_argument("--fail-below", action="append", default=[], metavar="SCORE=VALUE")
    what.add_argument("--fail-above", action="append", default=[], metavar="SCORE=VALUE")
    what.add_argument("--save", metavar="NAME", help="save the scores as a baseline of that name")
    what.add_argument("--compare", metavar="NAME", help="fail what got worse since that baseline")
    what.add_argument("--baselines", type=Path, default=Path(FOLDER), metavar="DIR")


@dataclass(frozen=True)
class Judge:
    """The limits and the baseline to hold scores to, and where to save a new one."""

    limits: list[Limit]
    save: Path | None
    baseline: Baseline | None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Judge:
        """What the options say, read before anything runs.

        Raises:
            UsageError: for a limit that is none, or a baseline that cannot be read.
        """
        save, before = (
            path_of(name, options.baselines) if name else None
            for name in (options.save, options.compare)
        )
        return cls(
            [
                *(parse_limit(text, fail_below=True) for text in options.fail_below),
                *(parse_limit(text, fail_below=False) for text in options.fail_above),
            ],
            save,
            Baseline.load(before) if before else None,
        )

    def results(self, evaluation: Evaluation) -> list[dict[str, str]]:
        """How the limits stand, for the report."""
        return results(evaluation.scores(), self.limits, evaluation.meta.get("skipped", []))

    def judge(
        self,
        evaluation: Evaluation,
        options: argparse.Namespace,
        console: Console,
        page: Path | None,
    ) -> int:
        """Say how the scores stand, and save them; returns the exit code.

        Args:
            evaluation: the scores.
            options: of the command.
            console: where to.
            page: the report of them, if there is one.
        """
        from effattack.results.changes import Comparison, compare

        try:
            verdicts = judge(evaluation.scores(), self.limits, evaluation.meta.get("skipped", []))
        except MeasurementError:
            if options.json:
                output.print_json(evaluation, page, options.stdout)
            raise
        if self.save:
            console.print(f"baseline: {Baseline.of(evaluation).save(self.save)}", **PLAIN)
        found = Comparison([], [])
        if self.baseline:
            found = compare(evaluation, self.baseline, options.compare)
            kept = f"{len(found.judged)} scores compared, no worse than {options.compare}"
            found.notes.extend([kept] if found.judged and not found.worse else [])
        for message in [v.message for v in verdicts if v.passed] + found.notes:
            console.print(message, **PLAIN)
        bad = [verdict.message for verdict in verdicts if not verdict.passed]
        bad += [f"worse than {options.compare}: {change}" for change in found.worse]
        output.print_bad_news(bad, options)
        if options.json:
            output.print_json(evaluation, page, options.stdout, verdicts, found.worse)
        return 1 if bad else 0
