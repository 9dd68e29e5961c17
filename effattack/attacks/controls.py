"""What every attack must be compared with: nothing, noise, much noise, and a picture of nothing."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.attacks.effort import tokens_through
from effattack.attacks.objectives import BatchGoal, Goal
from effattack.attacks.searches.best import Best, ranked, unfinished
from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.threats import ArrayThreat, Box, Nothing, Threat
from effattack.victim import Victim

AT_ONCE = 512
"""Random inputs that are run together."""


class WithoutBudget(Attack):
    """A control that keeps to no budget of the caller's."""

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    budgeted, fixed = False, True


class Clean(WithoutBudget):
    """The clean inputs themselves; no seed changes them."""

    takes, label = "any", "clean"

    def prepare(self) -> None:
        self.seed = 0

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Nothing()

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return clean


class Noise(Attack):
    """Random noise in the budget, uniform where that makes sense: what an attack must beat.

    Args:
        victim: any victim.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        seed: of the noise.
    """

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    takes = "any"
    label = "noise"

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        return threat.on_grid(threat.start(clean, generator), clean)


class BestOfRandom(Attack):
    """The worst of many random points of the budget, by executed work: what a search must beat.

    Points are those of ``noise``, and the clean input is one of them. An input whose ceiling is
    reached is drawn no more.

    Equal effort is either as many ``draws`` as an attack runs inputs, a gradient counting three, or
    as many ``tokens`` as it sends through the model (:func:`effattack.attacks.effort.metered`).

    Args:
        victim: any victim of arrays, prompts, graphs or parts whose work is known.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        draws: most random points per input.
        tokens: most tokens through the model per prompt, on average over those that are attacked
            together: what finished ones leave is spent on the others. The draws that run when it is
            used up are finished.
        seed: of the points.

    Raises:
        NotApplicable: for a victim whose executed work is unknown.
        UsageError: for fewer than one draw or token, or tokens of inputs that have none.
    """

    kind: ClassVar[Kind] = "control"
    knowledge = "queries"
    takes = "arrays or tokens or graph or parts"

    draws: int = 64
    tokens: float = math.inf

    def prepare(self) -> None:
        if self.draws < 1 or not self.tokens >= 1:
            raise UsageError(
                f"draws = {self.draws}, tokens = {self.tokens}: give at least one of each"
            )
        if self.tokens < math.inf and self.victim.domain.kind != "tokens":
            raise UsageError(
                f"tokens = {self.tokens}: {self.victim.domain.nouns} have none; give draws alone"
            )

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        return None if victim.counted else f"the work of {victim.name} is unknown: nothing is best"

    def run(self, clean: Batch, goal: BatchGoal, generator: Generator) -> Batch:
        domain, victim = self.victim.domain, goal.victim
        best = Best.of(as_wide_as(clean, self.threat.largest(clean), self.victim), goal)
        rows, spent, left = torch.arange(len(clean), device=clean.device), 0.0, self.draws
        while left and spent < self.tokens * len(clean):
            if (going := unfinished(best, rows, goal)) is not None:
                rows = rows[going]
                if not len(rows):
                    break
            count = min(left, max(1, AT_ONCE // len(rows)))
            index = rows.repeat(count)
            centre = clean[index]
            threat = self.threat.placed(centre, generator)
            found = threat.on_grid(threat.start(centre, generator), centre)
            with torch.no_grad():
                trace = victim.trace(found)
            rank = ranked(trace, goal.rows(index), torch.zeros_like(victim.spent(trace)))
            if domain.kind == "tokens":
                spent += tokens_through(found, trace).sum().item()
            found = as_wide_as(found, best.inputs, self.victim)
            for own in torch.arange(len(index), device=clean.device).split(len(rows)):
                best.update(rows, found[own], rank.rows(own))
            left -= count
            goal.callback(best.step(0, self.draws - left, self.draws))
        return best.inputs


def as_wide_as(inputs: Batch, like: Batch, victim: Victim) -> Batch:
    """Inputs, padded as their domain pads them, to the width of others that are no narrower."""
    return victim.domain.join([inputs, like])[: len(inputs)]


class NearUniform(WithoutBudget):
    """A nearly uniform input, N(0.5, 2/255) per value of a range of 1, whatever the clean one was.

    Müller and Quiring, "The Impact of Uniform Inputs on Activation Sparsity and Energy-Latency
    Attacks in Computer Vision", SPW 2024 (arXiv 2403.18587): such images rival optimised sponges.
    The budget is the whole range, eps = 1.
    """

    label = "uniform"
    threat: ArrayThreat

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        domain = self.threat.domain
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        middle, span = (domain.low + domain.high) / 2, domain.high - domain.low
        return domain.snap((middle + span * noise * 2 / 255).clamp(domain.low, domain.high))
