"""What is drawn on the terminal: progress with the time left, the score table, the self-checks."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from effattack.reporting import words
from effattack.reporting.nouns import Noun, noun_of, with_domains
from effattack.reporting.twins import beside_twins
from effattack.results.currency import unit
from effattack.results.limits import unmeasured_because
from effattack.results.table import known
from effattack.streams import shown

if TYPE_CHECKING:
    import pandas as pd

    from effattack.attacks.objectives import Step
    from effattack.cells.spec import CellSpec
    from effattack.results.evaluation import Evaluation


PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
"""How a sentence is printed: as it is, on one line."""


class Screen(Console):
    """A console that writes control characters out, and goes on when nobody reads any more."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))

    def on_broken_pipe(self) -> None:
        """The exit code is still that of the scores."""
        self.quiet = True
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.file.fileno())
        os.close(nothing)


def progress_bar(console: Console) -> Log:
    """A bar on a terminal; in a log, a line per piece of work."""
    return Bar(console) if console.is_terminal else Log(console)


class Log:
    """A line per finished piece of work, with the time left; single steps are not told."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def of(self, total: float) -> Iterator[None]:
        """While so much work is done."""
        self.total, self.done, self.started = total, 0.0, time.monotonic()
        yield

    def advance(self, description: str, work: float) -> None:
        """So much work, so described, is finished."""
        self.done += work
        left = (time.monotonic() - self.started) * (self.total / self.done - 1)
        self.console.print(
            f"{self.done / self.total:4.0%}  {left:4.0f} s left  {description}", **PLAIN
        )

    def step(self, spec: CellSpec, step: Step) -> None:
        """An attack took a step."""


class Bar(Log):
    """What is done, what is left, and the step of the attack that runs."""

    @contextmanager
    def of(self, total: float) -> Iterator[None]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=self.console, speed_estimate_period=120)
        self.task = self.progress.add_task("starting", total=total)
        with self.progress:
            yield

    def advance(self, description: str, work: float) -> None:
        self.progress.update(self.task, description=description, advance=work)

    def step(self, spec: CellSpec, step: Step) -> None:
        run = f"run {step.restart + 1}, " if step.restart else ""
        told = f"{spec.victim}: {spec.attack}, {run}step {step.step} of {step.steps}"
        self.progress.update(self.task, description=told)


def print_scores(evaluation: Evaluation, console: Console, verbose: bool) -> None:
    """A score table per victim and its verdict, what was skipped, and the checks that failed.

    Args:
        evaluation: the scores.
        console: where to.
        verbose: say why each attack was skipped; else a line per victim names them.
    """
    table = with_domains(evaluation.scores(), evaluation.meta)
    for beside in beside_twins(table, evaluation.meta):
        style = "" if beside.enough else "bold yellow"
        console.print(f"{beside.victim} {beside.told}", style=style, **PLAIN)
    for victim, rows in table.groupby("victim", sort=False):
        noun = noun_of(evaluation.meta, str(victim))
        console.print(_table(str(victim), rows, noun))
        for line in _verdict(rows, evaluation.meta, noun):
            console.print(line, **PLAIN)
        for row in rows[rows.latency_ratio.isna() & rows.latency_low.notna()].to_dict("records"):
            why = f"latency under {row['attack']}: {words.latency(row, noun.many)}"
            console.print(why, style="dim", **PLAIN)
        console.print()
    for line in _skipped(evaluation.meta.get("skipped", []), verbose):
        console.print(line, style="dim", **PLAIN)
    for note in evaluation.meta.get("notes", []):
        console.print(f"note: {note}", **PLAIN)
    checks = evaluation.checks()
    failed = [check for check in checks if check.passed is False]
    passed = sum(check.passed is True for check in checks)
    console.print(f"self-checks: {passed} passed, {len(failed)} failed")
    for check in failed:
        text = f"  {check.victim}: {check.check}: {check.message}"
        console.print(text, style="yellow", **PLAIN)


def _skipped(skipped: Sequence[Mapping[str, str]], verbose: bool) -> Iterator[str]:
    """What was skipped: each attack with its reason, or all of a victim on one line."""
    if verbose:
        yield from (f"skipped {skip['attack']}: {skip['reason']}" for skip in skipped)
        return
    victims: dict[str, list[str]] = {}
    for skip in skipped:
        victims.setdefault(skip["victim"], []).append(skip["attack"] or "the self-checks")
    for victim, attacks in victims.items():
        times = Counter(attacks).items()
        names = ", ".join(f"{name} ({n} times)" if n > 1 else name for name, n in times)
        yield f"skipped on {victim}: {names} (--verbose and the report say why)"


def _table(victim: str, rows: pd.DataFrame, noun: Noun) -> Table:
    from effattack.reporting import work
    from effattack.reporting.tables import told

    first = rows.iloc[0]
    costs, judged = work.told(first.to_dict()), work.by_macs(first.to_dict())
    of = "" if judged else f" {costs.unit}"
    scored = rows.to_dict("records")
    most = work.told(work.roomiest(scored)).most
    about = f"clean {costs.clean}, max {most}{of} per {noun.one}"
    title = Text(f"{victim}: {about}{', constant' if first.constant else ''}")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("attack", overflow="fold", min_width=12)  # words give way, numbers do not
    budgets = ["" if row["threat"] in ("none", "box") else words.budget(row) for row in scored]
    table.add_column(
        "eps", justify="right", overflow="fold", min_width=min(9, max(map(len, budgets)))
    )
    shown = [score for score in known().values() if score.shown.brief and told(score, rows)]
    if not judged:
        table.add_column(costs.unit, justify="right", no_wrap=True)
    for score in shown:
        folded = score.shown.form == "retained"
        table.add_column(
            score.shown.brief,
            justify="right",
            no_wrap=not folded,
            min_width=8 if folded else None,
            max_width=10 if folded else None,
        )
    table.add_column("latency", justify="right", no_wrap=judged, min_width=12)
    for row, budget in zip(scored, budgets, strict=True):
        table.add_row(
            Text(row["attack"]),
            budget,
            *([] if judged else [work.told(row).ratio]),
            *(words.brief(score, row) for score in shown),
            # why it was not measured stands under the table
            words.latency(row, noun.many).partition(":")[0],
        )
    return table


def _verdict(rows: pd.DataFrame, meta: dict[str, Any], noun: Noun) -> Iterator[str]:
    """What the unions say, each with its interval, and what a reader must know beside them."""
    from effattack.reporting.brackets import has_certificate
    from effattack.reporting.brackets import told as bracket
    from effattack.results.caveats import caveats
    from effattack.results.union import UNION

    if unmeasured := unmeasured_because(rows):
        yield f"could not be measured: {unmeasured}"
        return
    if rows.constant.all():
        yield "constant: its MACs cannot depend on the input, so there is nothing to take back"
        return
    for row in rows[rows.kind == UNION].to_dict("records"):
        said = f"{words.ratio(row['equals_n_requests'])} {unit(row)}"
        if not words.missing(row["savings_retained"]):
            span = words.span(row["savings_retained_low"], row["savings_retained_high"])
            said = f"{words.percent(row['savings_retained'])} retained" + f" ({span})" * bool(span)
        found = row["found_by"] or f"nothing cost more than the clean {noun.one}"
        yield f"verdict at {_at(row)}: {said}; {found}"
        if row["found_by"]:
            equal = words.decimal(row["equals_n_requests"], 2)
            yield f"  one such request equals {equal} clean ones; who found it: {row['knowledge']}"
        if has_certificate(row):
            yield f"bracket at {bracket(row, meta, attacked=True)}".replace("ε = ", "eps ")
    yield from (f"but: {caveat}" for caveat in caveats(rows, meta))


def _at(row: dict[str, Any]) -> str:
    """A budget inside a sentence: "eps 8/255", "l2 0.5"."""
    return words.at(row).replace("ε = ", "eps ")
