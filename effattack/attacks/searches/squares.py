"""Random search without gradients: one square of new colours per query."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import Goal
from effattack.attacks.searches.best import Acceptance, Best, Rank, ranked, unfinished
from effattack.errors import UsageError
from effattack.tasks import Classes
from effattack.threats import ArrayThreat
from effattack.victim import Trace


@dataclass(frozen=True)
class Squares:
    """What a random search proposes: squares that shrink as the queries run out.

    Andriushchenko et al., "Square Attack", ECCV 2020 (arXiv 1912.00049): vertical stripes first,
    then one square per query with random corners of the l-inf ball. Outside l-inf, a proposal
    changes pixels as far as the threat lets one pixel go and is then projected; in a patch, the
    squares lie inside it.

    Args:
        first: share of the image that the first squares cover (paper: 0.05 to 0.8).
    """

    first: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.first <= 1:
            raise UsageError(f"first squares of {self.first} of an image: give a share in (0, 1]")

    def stripes(self, clean: Tensor, threat: ArrayThreat, generator: Generator) -> Tensor:
        """Inputs of vertical stripes around the clean ones (of a series: each time by itself)."""
        batch, channels, *upper, width = clean.shape
        shape = (batch, channels, *[1] * len(upper), width)
        shift = _corners(shape, threat, generator).to(clean)
        return threat.on_grid(clean + shift.expand_as(clean), clean)

    def painted(
        self,
        images: Tensor,
        clean: Tensor,
        threat: ArrayThreat,
        progress: float,
        generator: Generator,
    ) -> Tensor:
        """The inputs with one square each in new colours, each at a place of its own.

        Of a series, a stretch of time takes the place of the square.
        """
        batch, channels, *lengths = clean.shape
        edges, room = threat.window(clean)
        share = self.first * (1 - progress) ** 2
        side = max(1, min(*room, round(math.prod([share, *room]) ** (1 / len(room)))))
        inside = torch.ones((), dtype=torch.bool)
        for axis, (edge, most, length) in enumerate(zip(edges, room, lengths, strict=True)):
            drawn = torch.randint(0, most - side + 1, (batch,), generator=generator)
            first, index = (edge + drawn)[:, None], torch.arange(length)
            shape = [batch, 1, *[1] * len(lengths)]
            shape[2 + axis] = length
            inside = inside & ((index >= first) & (index < first + side)).view(shape)
        colours = _corners((batch, channels, *[1] * len(lengths)), threat, generator).to(clean)
        shift = torch.where(inside.to(clean.device), colours, images - clean)
        return threat.on_grid(clean + shift, clean)


@dataclass(frozen=True)
class RandomSearch:
    """Takes a proposal if the victim works more on it, or as much with a less sure answer.

    Work is a staircase, and a search that sees only stairs stalls on the first landing: the doubt,
    of classifiers 1 - the top probability, breaks ties.

    Args:
        queries: forward passes per image.
        squares: what is proposed.
        accept: which proposals count; None: all.
    """

    queries: int
    squares: Squares = Squares()
    accept: Acceptance | None = None

    def climb(
        self,
        best: Best,
        clean: Tensor,
        threat: Any,
        goal: Goal,
        generator: Generator,
        restart: int = 0,
    ) -> None:
        """Raise ``best``, of the images that can still gain work; the threat is placed.

        ``restart`` is the number of the run, for the callback.
        """
        rows = torch.arange(len(clean), device=clean.device)
        best.judged_by(self._look(best.inputs, goal).value)
        for query in range(self.queries):
            if (going := unfinished(best, rows, goal)) is not None:
                rows = rows[going]
                if len(rows) == 0:
                    return
            mine, centre, place = best.inputs[rows], clean[rows], threat.rows(rows)
            found = self.proposed(mine, centre, place, query, generator)
            best.update(rows, found, self._look(found, goal.rows(rows)))
            goal.callback(best.step(restart, query + 1, self.queries))

    def proposed(
        self, mine: Tensor, clean: Tensor, threat: Any, query: int, generator: Generator
    ) -> Tensor:
        """What a query looks at, near the best images so far: stripes first, then squares."""
        if query == 0:
            return self.squares.stripes(clean, threat, generator)
        return self.squares.painted(mine, clean, threat, query / self.queries, generator)

    def _look(self, images: Tensor, goal: Goal) -> Rank:
        """By work, and then by doubt."""
        with torch.no_grad():
            trace = goal.victim.trace(images)
        return ranked(trace, goal, doubt(trace, goal), accept=self.accept)


def doubt(trace: Trace, goal: Goal) -> Tensor:
    """(B,): how little sure an answer is; higher is less. 0 where a task cannot tell."""
    task, outputs = goal.victim.task, trace.logits
    if isinstance(task, Classes):
        return 1 - outputs.softmax(1).amax(1)
    lead = task.lead(outputs, task.answer(outputs))
    return torch.zeros(len(trace.macs), device=trace.macs.device) if lead is None else -lead


def _corners(shape: tuple[int, ...], threat: ArrayThreat, generator: Generator) -> Tensor:
    return threat.reach * (2 * torch.randint(0, 2, shape, generator=generator) - 1)
