"""What searches share that climb by gradients: restarts, each from a point of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import BatchGoal, Goal, Objective
from effattack.attacks.searches.best import Acceptance, Best
from effattack.errors import UsageError


@dataclass(frozen=True)
class Climb(ABC):
    """Runs that raise an objective, judged by executed work.

    Args:
        steps: gradient evaluations per restart.
        random_start: start at a random point, ``first``, not at the clean input.
        restarts: independent runs.
        accept: which iterates count; None: all.
        ask: what is asked beside work, of equal work the second criterion; None: nothing. An input
            is left alone only once it does the most work and what is asked holds.
    """

    steps: int
    _: KW_ONLY
    random_start: bool = True
    restarts: int = 1
    accept: Acceptance | None = None
    ask: Acceptance | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise UsageError(
                f"steps = {self.steps} and restarts = {self.restarts} must be at least 1: a search "
                "that never steps attacks nothing"
            )

    def __call__(
        self,
        clean: Tensor,
        threat: Any,
        objective: Objective,
        goal: BatchGoal,
        generator: Generator,
    ) -> Tensor:
        """The best inputs found, such as a deployed model can be fed, inside the budget."""
        objective.check(goal.trace, goal.victim)
        best = Best.of(clean, goal)
        with torch.no_grad():
            best.judged_by(objective(goal.trace, goal))
        if self.ask is not None:
            best.rank = best.rank._replace(asked=self.ask(goal.trace, goal))
        for restart in range(self.restarts):
            placed = threat.placed(clean, generator)
            start = self.first(clean, placed, generator) if self.random_start else clean
            self.climb(best, start, clean, placed, objective, goal, restart)
        return best.inputs

    def first(self, clean: Tensor, threat: Any, generator: Generator) -> Tensor:
        """Where a random start lies: anywhere in the budget."""
        return threat.start(clean, generator)

    @abstractmethod
    def climb(
        self,
        best: Best,
        start: Tensor,
        clean: Tensor,
        threat: Any,
        objective: Objective,
        goal: Goal,
        restart: int = 0,
    ) -> None:
        """One run from ``start`` by the inputs that can still gain work.

        Args:
            best: what is known of each input; updated.
            start: where it begins.
            clean: the clean inputs.
            threat: placed around them.
            objective: what to want.
            goal: what it refers to.
            restart: its number, for the callback.
        """
