"""The best iterate of each input so far, and how iterates rank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from effattack.attacks.objectives import (
    BatchGoal,
    Goal,
    Step,
    label_trails,
    prediction_leads,
    prediction_trails,
)
from effattack.domains import Batch, PartsBatch
from effattack.victim import Trace
from effattack.victim.rounding import margin_slack, on_knife_edge


class Rank(NamedTuple):
    """What iterates are chosen by, (B,) each: the first of them in which two differ decides.

    A surrogate never decides against the work that was executed.
    """

    work: Tensor
    """float64, in the currency of the victim; -inf where an iterate does not count."""
    safe: Tensor
    """bool: no decision lies within rounding of its threshold."""
    asked: Tensor
    """bool: what is asked beside work holds."""
    value: Tensor
    """The objective, or another tie-break: higher is better."""

    @classmethod
    def of(cls, work: Tensor, value: Tensor) -> Self:
        """Of work that is safe from rounding, where nothing else is asked."""
        sure = torch.ones_like(work, dtype=torch.bool)
        return cls(work, sure, sure.clone(), value)

    def above(self, other: Rank) -> Tensor:
        """(B,) bool: which rank higher than their counterparts."""
        higher = self.value > other.value
        for mine, its in (
            (self.asked, other.asked),
            (self.safe, other.safe),
            (self.work, other.work),
        ):
            higher = (mine > its) | ((mine == its) & higher)
        return higher

    def rows(self, index: Tensor) -> Rank:
        """The same of some inputs."""
        return Rank(*(part[index] for part in self))


Acceptance = Callable[[Trace, Goal], Tensor]
"""Which iterates count, (B,) bool; the clean input always does."""


def ranked(
    trace: Trace,
    goal: Goal,
    value: Tensor,
    *,
    accept: Acceptance | None = None,
    ask: Acceptance | None = None,
) -> Rank:
    """The rank of iterates, by what the victim did on its hard path.

    Args:
        trace: of the iterates.
        goal: what they were made for.
        value: (B,) of the objective.
        accept: which of them count; None: all.
        ask: what is asked beside work; None: nothing.
    """
    rank = Rank.of(goal.victim.spent(trace), value.detach())._replace(safe=~on_knife_edge(trace))
    if accept is not None:
        rank = rank._replace(work=torch.where(accept(trace, goal), rank.work, -torch.inf))
    return rank if ask is None else rank._replace(asked=ask(trace, goal))


@dataclass
class Best:
    """The best iterate of each input so far."""

    inputs: Batch
    rank: Rank

    @classmethod
    def of(cls, clean: Batch, goal: BatchGoal) -> Best:
        """The clean inputs themselves; any iterate that does as much work replaces them."""
        work = goal.victim.spent(goal.trace).clone()
        logits = goal.trace.logits
        dtype = logits.dtype if logits.is_floating_point() else work.dtype
        value = torch.full_like(work, -torch.inf, dtype=dtype)
        return cls(clean.clone(), Rank.of(work, value))

    @classmethod
    def none(cls, clean: Batch, dtype: torch.dtype = torch.float64) -> Best:
        """The clean inputs until any iterate is looked at."""
        work, value = (
            torch.full((len(clean),), -torch.inf, dtype=kind, device=clean.device)
            for kind in (torch.float64, dtype)
        )
        return cls(clean.clone(), Rank.of(work, value))

    def judged_by(self, value: Tensor) -> None:
        """From now on, this breaks ties."""
        self.rank = self.rank._replace(value=value)

    def step(self, restart: int, step: int, steps: int) -> Step:
        """What a callback is told; its own copies."""
        return Step(restart, step, steps, self.rank.work.clone(), self.rank.value.clone())

    def update(self, rows: Tensor, inputs: Batch, rank: Rank) -> None:
        """Take over iterates of ``rows`` that rank higher."""
        better = rank.above(self.rank.rows(rows))
        _put(self.inputs, rows, inputs, better)
        for mine, its in zip(self.rank, rank, strict=True):
            mine[rows] = torch.where(better, its.to(mine), mine[rows])


def _put(into: Batch, rows: Tensor, inputs: Batch, where: Tensor) -> None:
    """Write inputs (B) over those of ``rows``, where that (B,) holds; of parts, every part."""
    if isinstance(into, PartsBatch):
        for name, part in into.parts.items():
            _put(part, rows, inputs[name], where)
        return
    wide = where.view(-1, *[1] * (inputs.dim() - 1))
    into[rows] = torch.where(wide, inputs, into[rows])


def unfinished(best: Best, rows: Tensor, goal: Goal) -> Tensor | None:
    """(B,) bool: which rows can still gain something; None if all of them."""
    rank = best.rank.rows(rows)
    if goal.ceiling is None:
        return None
    full = rank.work >= goal.ceiling[rows]  # which may be unknown: NaN
    going = ~(full & rank.safe & rank.asked)
    return None if bool(going.all()) else going


def kept(trace: Trace, goal: Goal) -> Tensor:
    """Those whose answer agrees with the clean one, beyond rounding where that can be told."""
    task = goal.victim.task
    agrees = task.agree(goal.answer, task.answer(trace.logits), goal.kept)
    lead = prediction_leads(trace.logits, goal)
    return agrees if lead is None else agrees & (lead > margin_slack(trace.dtype))


def changed(trace: Trace, goal: Goal) -> Tensor:
    """Those whose answer does not agree with the clean one, likewise."""
    task = goal.victim.task
    agrees = task.agree(goal.answer, task.answer(trace.logits), goal.kept)
    trail = prediction_trails(trace.logits, goal)
    return ~agrees if trail is None else ~agrees & (trail > margin_slack(trace.dtype))


def wrong(trace: Trace, goal: Goal) -> Tensor:
    """Those whose answer is not what the label says, likewise."""
    task = goal.victim.task
    right = task.right(task.answer(trace.logits), goal.labels, goal.kept)
    trail = label_trails(trace.logits, goal)
    return ~right if trail is None else ~right & (trail > margin_slack(trace.dtype))
