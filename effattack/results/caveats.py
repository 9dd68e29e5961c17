"""What is said beside a score: why an attacker may take more than the verdict says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from effattack.budgets import at_budget
from effattack.results.currency import unit

FAR = 2
"""A declared max beyond so many times what any input reached is said."""
NEAR = 0.9
"""What took back so much of the savings leaves little to be found."""
QUERIES = re.compile(r"\bqueries=(\d+)")


def caveats(rows: pd.DataFrame, meta: Mapping[str, Any]) -> list[str]:
    """Of one victim, in sentences.

    Args:
        rows: its scores; those of earlier versions, which name no union, have no caveats.
        meta: how they were made.
    """
    unions = rows[rows.kind == "union"]
    if unions.empty or rows.constant.all() or unions.equals_n_requests.isna().all():
        return []
    union = unions.loc[unions.equals_n_requests.idxmax()]
    return [
        *_censored(union),
        *_outside(rows, union),
        *_max(rows),
        *_search(rows, union, meta),
    ]


def _censored(union: pd.Series) -> Iterator[str]:
    """Texts that the cap ended: under another one they would have cost something else."""
    if union.cap_hit_rate > 0:
        yield (
            f"the cap ended {union.cap_hit_rate:.0%} of the texts ({union.clean_cap_hit_rate:.0%} "
            f"of the clean ones): such runs are censored, so the mean of {union.work:,.1f} "
            f"{unit(union)} and its ratio to clean are those of this cap"
        )


def _outside(rows: pd.DataFrame, union: pd.Series) -> Iterator[str]:
    """Rows that never count, where they reached more than the union did."""
    outside = ~rows.inside.astype(bool)
    more = rows[outside & (rows.equals_n_requests > union.equals_n_requests)]
    reached = [
        f"`{row.attack}` reached ×{row.equals_n_requests:.2f}"
        for row in more.sort_values(
            "equals_n_requests", ascending=False, kind="stable"
        ).itertuples()
    ]
    if reached:
        budget = at_budget(union.threat, union.eps)
        yield (
            f"outside the budget, {', '.join(reached)}; the verdict, "
            f"×{union.equals_n_requests:.2f}, is that of {budget} alone"
        )


def _max(rows: pd.DataFrame) -> Iterator[str]:
    declared, reached = rows.max_work.max(), rows.reachable.max()
    if declared > FAR * reached:
        yield (
            f"the declared max is ×{declared / reached:.1f} what any input reached: if no input "
            "can reach it, savings retained are flattered; declare the structural worst case"
        )


def _search(rows: pd.DataFrame, union: pd.Series, meta: Mapping[str, Any]) -> Iterator[str]:
    """How hard it was looked for dear inputs, where that is little."""
    if (rows.equals_n_requests == 1).all():
        yield (
            f"neither an attack nor a control moved its {unit(union)}: nothing shows that its work "
            "depends on the input"
        )
    compute = rows[rows.kind == "compute"]
    if compute.empty:
        yield "no compute attack ran: nobody looked for dear inputs on purpose"
    elif (compute.knowledge == "queries").all():
        told = [int(n[1]) for text in meta.get("attacks") or () if (n := QUERIES.search(text))]
        most = f", at most {max(told):,} an input" if told else ""
        if not union.attack_success >= NEAR:
            known = "its max is unknown"
            if union.attack_success == union.attack_success:
                known = f"all that was found took back {union.attack_success:.0%} of the savings"
            yield f"only queries looked for dear inputs{most}, and {known}: more may exist"
