"""How far a generator goes where embeddings may move: rows that no text has.

This is no attack, and no row of a table of attacks: nothing that could be sent is found, so that
nothing of it enters a union, a verdict or a baseline. It tells how much room a relaxation leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from effattack.attacks.base import check_objective
from effattack.attacks.objectives import BatchGoal, MarginHinge
from effattack.attacks.searches.best import Best, ranked
from effattack.attacks.searches.projected import cosine, input_gradient
from effattack.attacks.searches.words import GRADIENT
from effattack.domains.tokens import Tokens
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Trace, Victim
from effattack.victim.leaf import Leaf
from effattack.victim.undisturbed import undisturbed

OBJECTIVE = MarginHinge()
FIRST = 0.3
"""First step, in radii."""


class OffText(NamedTuple):
    """Work in the currency of the victim, (B,) float64 each, of prompts that no text is."""

    clean: Tensor
    """Of the prompts themselves."""
    random: Tensor
    """Most of as many random points of the ball as a search of equal effort looks at."""
    searched: Tensor
    """Most of the iterates of the search."""
    ceiling: Tensor
    """The most that there can be."""

    def __str__(self) -> str:
        parts = (f"{name} {value.mean():.2f}" for name, value in self._asdict().items())
        return f"rows that no text has, means: {', '.join(parts)}"


def off_text(
    victim: Victim, prompts: Tensor, *, share: float = 0.5, steps: int = 50, seed: int = 0
) -> OffText:
    """What the house objective reaches where rows move in balls, each around its own token's.

    Steepest ascent in l2 per token; steps fall from .3 of the radius along a cosine, and the best
    iterate by executed work counts. Where words are further apart than the ball is wide, attacks
    on words may go further than this: it bounds the relaxation, not them.

    Args:
        victim: one of prompts that lifts words.
        prompts: (B, L) of its domain; all tokens of the user's part move.
        share: radius, in mean norms of the vocabulary's rows.
        steps: gradients.
        seed: of the random points, and of the chance of a victim that draws.

    Raises:
        NotApplicable: for a victim without gates, or one that lifts no words.
        UsageError: for a radius or steps that are not positive.
    """
    if not (math.isfinite(share) and share > 0) or steps < 1:
        raise UsageError(f"share = {share}, steps = {steps}: give positive numbers")
    if not isinstance(victim.domain, Tokens):
        raise NotApplicable(f"{victim.name} takes {victim.domain.nouns}, which have no embeddings")
    check_objective(OBJECTIVE, victim)
    victim.domain.check(prompts)
    with undisturbed(victim):
        prompts = victim.domain.place(prompts, victim.device)
        goal = BatchGoal.of(victim.searched(seed), prompts, None)
        ball = Ball.around(victim, prompts, share)
        generator = Generator().manual_seed(seed)
        random = _farthest(ball, goal, (ball.drawn(generator) for _ in range(GRADIENT * steps)))
        searched = _ascended(ball, goal, steps)
        with torch.no_grad():
            points = (torch.zeros_like(ball.rows), random, searched)
            clean, other, found = (victim.spent(ball.trace(victim, at)) for at in points)
    assert goal.ceiling is not None
    return OffText(clean, other, found, goal.ceiling)


class Ball(NamedTuple):
    """Rows of prompts, each of which may move by a radius in l2."""

    prompts: Tensor
    rows: Tensor
    """(B, L, width): where they stand."""
    places: Tensor
    """(B, L)."""
    radius: float

    @classmethod
    def around(cls, victim: Victim, prompts: Tensor, share: float) -> Ball:
        """``share`` mean norms of the rows of all ids that there are."""
        assert isinstance(victim.domain, Tokens)
        places = torch.arange(prompts.shape[1], device=prompts.device).expand_as(prompts)
        ids = torch.arange(victim.domain.vocabulary, device=prompts.device)[:, None]
        norms = victim.lift(ids, torch.zeros_like(ids)).rows.detach().norm(dim=-1)
        rows = victim.lift(prompts, places).rows.detach()
        return cls(prompts, rows, places, share * float(norms.mean()))

    def trace(self, victim: Any, moved: Tensor) -> Trace:
        """Of the prompts, their rows moved."""
        return victim.trace(self.prompts, leaf=Leaf(self.rows + moved, self.places))

    def inside(self, moved: Tensor) -> Tensor:
        """The nearest point of the ball, of every token."""
        norms = moved.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(moved.dtype).tiny)
        return moved * (self.radius / norms).clamp(max=1)

    def along(self, direction: Tensor, size: float) -> Tensor:
        """So many radii in a direction, of every token; none where there is none."""
        return size * self.radius * functional.normalize(direction, dim=-1)

    def drawn(self, generator: Generator) -> Tensor:
        """Random directions, as far as the ball goes."""
        return self.along(torch.randn(self.rows.shape, generator=generator).to(self.rows), 1.0)


def _ascended(ball: Ball, goal: BatchGoal, steps: int) -> Tensor:
    """The best iterates of steepest ascent."""
    best, moved, size = _none(ball, goal), torch.zeros_like(ball.rows), cosine(FIRST)
    everyone = torch.arange(len(moved), device=moved.device)
    for step in range(steps):
        with torch.enable_grad():
            trace = ball.trace(goal.victim, moved.requires_grad_())
            value = OBJECTIVE(trace, goal)
            gradient = input_gradient(value, moved, trace)
        moved = moved.detach()
        best.update(everyone, moved, ranked(trace, goal, value))
        moved = ball.inside(moved + ball.along(gradient, size(step / steps)))
    return best.inputs


def _farthest(ball: Ball, goal: BatchGoal, points: Iterable[Tensor]) -> Tensor:
    """The best of some points."""
    best = _none(ball, goal)
    everyone = torch.arange(len(ball.rows), device=ball.rows.device)
    for moved in points:
        with torch.no_grad():
            trace = ball.trace(goal.victim, moved)
            best.update(everyone, moved, ranked(trace, goal, OBJECTIVE(trace, goal)))
    return best.inputs


def _none(ball: Ball, goal: BatchGoal) -> Best:
    """Nothing moved yet."""
    return replace(Best.of(ball.prompts, goal), inputs=torch.zeros_like(ball.rows))
