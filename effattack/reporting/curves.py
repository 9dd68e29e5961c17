"""Budget against cost and accuracy: security curves, and the scatter of accuracy over cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from effattack.reporting import axes, words, work
from effattack.reporting.figure import Figure, Key
from effattack.reporting.verdict import Row, Verdict, series
from effattack.reporting.words import missing
from effattack.results.currency import currency_of, work_of
from effattack.results.union import UNION

PERCENTS = [(quarter / 4, f"{25 * quarter}{words.NBSP}%") for quarter in range(5)]


def security_curves(rows: list[Row], verdict: Verdict, palette: dict[str, str]) -> list[Figure]:
    """Work and accuracy against the budget, per threat; nothing where one budget was run."""
    aside = ("control", UNION)
    lines = [row for row in rows if row["kind"] not in aside or row["attack"] == "noise"]
    found = []
    for threat in dict.fromkeys(row["threat"] for row in lines):
        own = [row for row in lines if row["threat"] == threat]
        ladder = {row["eps"]: words.budget(row) for row in sorted(own, key=lambda row: row["eps"])}
        if len(ladder) < 2:
            continue
        clean = next((row for row in rows if row["attack"] == "clean"), None)
        top, like, unit = max(ladder), max(map(work.like_of, rows)), work.unit_in(rows)
        across = axes.Axis(0.0, 1.03 * top, [(0.0, "0"), *ladder.items()], "budget of the attacker")
        rules = work.rules(work.roomiest(own))
        costs = [cost for row in own for cost in (*work_of(row), *dict(work.rules(row)).values())]
        up = axes.Axis.upto(
            max(cost for cost in costs if not missing(cost)),
            f"{work.capital(unit)} per {verdict.noun.one}, mean",
            partial(words.macs_tick, like=like),
        )
        share = axes.Axis(0.0, 1.0, PERCENTS, "accuracy against the label")
        count = currency_of(own[0])
        for name, what, key, axis, marks, write in (
            (count, work.capital(unit), "work", up, rules, work.writer(own[0], like)),
            ("accuracy", "Accuracy", "accuracy", share, [], words.percent),
        ):
            drawn, legend = _lines(own, clean, key, palette)
            label = f"{what} of {verdict.victim} against the budget: "
            label += "; ".join(_said(own, key, write))
            plot = axes.plot(drawn, across, axis, label, marks)
            slug = f"security_{name}" + ("" if threat == "linf" else f"_{threat}")
            caption = f"{what} against the budget ({threat})"
            found.append(Figure(slug, caption, plot, legend))
    return found


def style(row: Row, palette: dict[str, str]) -> str:
    """The class of a row's line: its colour, or the dashes of its kind; a control has its own."""
    kind = "accuracy"
    if row["kind"] == "control":
        kind = "uniform" if row["attack"] == "uniform" else "noise"
    return palette.get(series(row), kind)


def _lines(
    own: list[Row], clean: Row | None, key: str, palette: dict[str, str]
) -> tuple[list[axes.Series], list[Key]]:
    drawn, legend = [], []
    for name in dict.fromkeys(map(series, own)):
        mine = sorted((row for row in own if series(row) == name), key=lambda row: row["eps"])
        points = [(row["eps"], row[key]) for row in mine]
        start = [(0.0, clean[key])] if clean else []
        css = style(mine[0], palette)
        drawn.append(axes.Series(css, start + points))
        legend.append(Key(css, name))
    return drawn, legend


def _said(own: list[Row], key: str, write: Callable[[float], str]) -> list[str]:
    return [f"{row['attack']} {words.budget(row)}: {write(row[key])}" for row in own]


def scatter(rows: list[Row], verdict: Verdict, palette: dict[str, str]) -> list[Figure]:
    """Accuracy over cost: where the victim stood, and where each attack moved it."""
    clean, unit = verdict.clean, work.unit_in(rows)
    like = max(map(work.like_of, rows), default=1.0)
    shown = [row for row in rows if row["attack"] not in ("clean", UNION)]
    shown = [row for row in shown if not missing(work_of(row).attacked)]
    if clean is None or not shown:
        return []
    drawn, legend = [], []
    for row in shown:
        css = style(row, palette)
        here = (work_of(row).attacked, row["accuracy"])
        start = (work_of(clean).attacked, clean["accuracy"])
        drawn.append(axes.Series(css, [start, here], open_ends=True))
        detail = f"{words.at(row)}: {work.writer(row, like)(work_of(row).attacked)} {unit}, "
        legend.append(Key(css, str(row["attack"]), detail + words.percent(row["accuracy"], 0)))
    known = [work_of(row) for row in shown]
    largest = max(value for one in known for value in one[1:] if not missing(value))
    name = f"{work.capital(unit)} per {verdict.noun.one}, mean"
    across = axes.Axis.upto(largest, name, partial(words.macs_tick, like=like))
    up = axes.Axis(0.0, 1.0, PERCENTS, "accuracy against the label")
    label = f"Accuracy over {unit} of {verdict.victim}: " + "; ".join(
        f"{key.name}, {key.detail}" for key in legend
    )
    plot = axes.plot(drawn, across, up, label)
    return [
        Figure("accuracy_cost", "Accuracy over cost: from clean (ring) to attacked", plot, legend)
    ]
