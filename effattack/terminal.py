"""What is drawn on the terminal: progress with the time left, the score table, the self-checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from effattack.evaluation import Evaluation


@contextmanager
def progress_bar(console: Console, total: float) -> Iterator[Callable[[str, float], None]]:
    """A bar with the time left; yields the function that advances it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=120) as progress:
        task = progress.add_task("starting", total=total)

        def advance(description: str, work: float) -> None:
            progress.update(task, description=description, advance=work)

        yield advance


def print_scores(evaluation: Evaluation, console: Console) -> None:
    """The score table, what was skipped, and the self-checks that failed."""
    scores = evaluation.scores()
    table = Table(title="how much of the savings an attacker takes back", title_justify="left")
    headers = ("victim", "attack", "eps", "accuracy", "agreement", "MACs", "of max", "× clean")
    for header in (*headers, "attack success", "savings retained", "latency × clean"):
        table.add_column(header, justify="left" if header in ("victim", "attack") else "right")
    for victim, rows in scores.groupby("victim", sort=False):
        for row in rows.itertuples():
            table.add_row(*map(Text, _cells(str(victim), row)))
        table.add_section()
    console.print(table)
    for skipped in evaluation.meta.get("skipped", []):
        console.print(f"skipped: {skipped['reason']}", style="dim", markup=False, highlight=False)
    checks = evaluation.checks()
    failed = [check for check in checks if check.passed is False]
    console.print(f"self-checks: {sum(c.passed is True for c in checks)} passed, {len(failed)} failed")
    for check in failed:
        text = f"  {check.victim}: {check.check}: {check.message}"
        console.print(text, style="yellow", markup=False, highlight=False)


def _cells(victim: str, row: pd.Series) -> list[str]:
    latency = "" if pd.isna(row.latency_ratio) else (
        f"{row.latency_ratio:.2f} [{row.latency_low:.2f}, {row.latency_high:.2f}] {row.clock}"
    )
    constant = " (constant)" if row.constant else ""
    return [
        victim,
        row.attack,
        f"{row.eps * 255:g}/255" if 0 < row.eps < 1 else "",
        f"{row.accuracy:.1%}",
        f"{row.agreement:.1%}",
        _si(row.macs),
        _number(row.macs / row.max_macs, ".1%"),
        f"{row.macs_ratio:.2f}",
        _number(row.attack_success, ".1%"),
        _number(row.savings_retained, ".1%") + constant,
        latency,
    ]


def _number(value: float, form: str) -> str:
    return "unknown" if pd.isna(value) else format(value, form)


def _si(macs: float) -> str:
    """1,234,567 -> 1.23 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if macs >= size:
            return f"{macs / size:.3g} {unit}"
    return f"{macs:.0f}"
