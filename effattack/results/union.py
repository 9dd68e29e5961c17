"""The union: per input, the worst of every row inside the asked budget, whoever found it.

An input inside the budget that costs more is a fact, be it found by an attack on the compute, by
one on the accuracy, or by noise. So the verdict on a victim is that of the union, and rows outside
the budget never count. What lies inside is measured: the change of every input of a row, in the
norm of the budget.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from pandas.api.typing import DataFrameGroupBy

from effattack.results.currency import counts_in, with_work
from effattack.results.frame import CERTIFIED, completed

CELL = ["victim", "attack", "threat", "eps"]
"""What one row of scores is of."""
UNION = "union"
"""Attack and kind of the union's rows."""
NORMS = ("linf", "l2", "l1", "pixels", "edits")
"""Threats that are distances, by the column that measures them."""
NAMED = 3
"""Of those who found the worst inputs, by name."""
_SLACK = 1e-5
"""What float32 rounding adds to a norm, relative; a step of the 8-bit grid is far more."""
_BULKY = ["image", "decisions", "opened"]


def with_unions(samples: pd.DataFrame) -> pd.DataFrame:
    """The per-sample rows, and below them those of every victim's unions.

    Args:
        samples: the frame of an evaluation.

    Returns:
        its columns, but for pictures and decisions, and ``work``, ``clean_work`` and ``max_work``
        (of the count that judges), ``slow_and_wrong``, ``inside`` (every input of the row's cell
        lies inside an asked budget) and ``found_by`` (in words, of unions). A union has one row
        per input: the most work of any row inside, right only if it is under all of them, and
        decided as by the twin likewise, ended by the cap if it is under any.
    """
    rows = with_work(completed(samples.drop(columns=_BULKY, errors="ignore")))
    rows = rows.assign(
        slow_and_wrong=(rows.work > rows.clean_work) & ~rows.right,
        inside=False,
        found_by="",
    )
    rows = rows.reset_index(drop=True)
    unions = []
    for _, own in rows.groupby("victim", sort=False):
        for threat, eps, within in within_budgets(own):
            rows.loc[within.index, "inside"] = True
            unions.append(_union(_sought(within, threat, eps), threat, eps))
    return pd.concat([rows, *(u for u in unions if len(u))], ignore_index=True)


def within_budgets(rows: pd.DataFrame) -> Iterator[tuple[str, float, pd.DataFrame]]:
    """Threat and size of the budgets that a victim is judged in, and its rows inside each."""
    for threat, eps in asked(rows):
        yield threat, eps, rows[_inside(rows, threat, eps)]


def asked(rows: pd.DataFrame) -> list[tuple[str, float]]:
    """Threat and size of the budgets that a victim is judged in.

    Those of the compute attacks that ran; where none did, those of the noise, which stands in every
    budget that was asked for. The pixel box admits every input, so that it is the budget only where
    no smaller one was asked for.
    """
    compute = rows[rows.kind == "compute"]
    judged = compute if len(compute) else rows[rows.attack == "noise"]
    budgets = list(dict.fromkeys(zip(judged.threat, judged.eps, strict=True)))
    return [budget for budget in budgets if budget[0] != "box"] or budgets


def _inside(rows: pd.DataFrame, threat: str, eps: float) -> pd.Series:
    """(rows,) bool: whether all inputs of a row's cell lie inside a budget.

    By their measured change where the budget is a norm that the frame holds; else only rows of the
    same threat, in no larger size, are known to.
    """
    size = rows[threat] if threat in NORMS and threat in rows else pd.Series(np.nan, rows.index)
    room = eps * (1 + _SLACK) + min(1e-6, 1e-3 * eps)
    declared = (rows.threat == "none") | ((rows.threat == threat) & (rows.eps <= room))
    within = (size <= room).where(size.notna(), declared) | (threat == "box")
    return within.groupby([rows[key] for key in CELL], sort=False).transform("all")


def _sought(within: pd.DataFrame, threat: str, eps: float) -> pd.DataFrame:
    """The rows of those inputs that have one in just this budget: all, unless stored ones are
    replayed. Of the others nobody looked for the worst there."""
    sought = within.loc[(within.threat == threat) & (within.eps == eps), "sample"]
    return within[within["sample"].isin(sought)]


def _union(within: pd.DataFrame, threat: str, eps: float) -> pd.DataFrame:
    """One row per input, from the rows inside a budget; of equal ones, the stronger attack's."""
    strength = within.groupby(CELL, sort=False).work.transform("mean")
    dearest = within.assign(strength=strength).sort_values(["work", "strength"], ascending=False)
    worst = dearest.drop_duplicates("sample").drop(columns="strength").sort_values("sample")
    every = within.groupby("sample")
    index = worst["sample"]
    dearer = worst.work >= worst.clean_work
    counts = {}
    for count in ("work", *counts_in(worst)):
        counts[count] = worst[count].where(dearer, worst[f"clean_{count}"])
        most = every[f"max_{count}"]  # in a smaller budget it may be lower
        known = most.max().where(most.count() == every.size())
        counts[f"max_{count}"] = known.loc[index].to_numpy()
    return worst.assign(
        attack=UNION,
        kind=UNION,
        threat=threat,
        eps=eps,
        seed=0,
        **counts,
        right=every.right.all().loc[index].to_numpy(),
        same=every.same.all().loc[index].to_numpy(),
        **_of_all(every, index),
        **_certified(within, threat, eps, index),
        slow_and_wrong=every.slow_and_wrong.any().loc[index].to_numpy(),
        inside=True,
        found_by=_found_by(worst),
        seconds=np.nan,
        clean_seconds=np.nan,
        joules=np.nan,
        clean_joules=np.nan,
    )


def _certified(
    within: pd.DataFrame, threat: str, eps: float, index: pd.Series
) -> dict[str, np.ndarray]:
    """What a certificate of just this budget says of each input: all its rows say the same."""
    own = within[(within.threat == threat) & (within.eps == eps)].groupby("sample")
    return {column: own[column].first().reindex(index).to_numpy(float) for column in CERTIFIED}


def _of_all(every: DataFrameGroupBy, index: pd.Series) -> dict[str, np.ndarray]:
    """Whether artefact and twin are alike under all rows of each input, and whether the cap ended
    one of its texts; each where that is told."""
    worst = {"as_twin": every.as_twin.all, "capped": every.capped.any}
    told = [column for column in worst if every.obj[column].notna().any()]
    return {column: worst[column]().loc[index].to_numpy() for column in told}


def _found_by(worst: pd.DataFrame) -> str:
    """ "Slowdown found 41 of 60, foolbox.LinfPGD 19"; nothing where no input costs more."""
    counts = worst.attack[worst.work > worst.clean_work].value_counts()
    if counts.empty:
        return ""
    (first, most), *others = counts.items()
    told = [f"{first} found {most} of {len(worst)}"]
    told += [f"{attack} {count}" for attack, count in others[: NAMED - 1]]
    rest = sum(count for _, count in others[NAMED - 1 :])
    return ", ".join([*told, *([f"others {rest}"] if rest else [])])
