"""Ways to look for the best known point: more gradients than any attack of the library takes.

Attacks by name, ``strategies:Rounds(by='adam')``, so that sweeps take them.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.attacks import AutoSlow
from effattack.attacks.base import Attack, check_objective
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import BatchGoal, MarginHinge, Objective, ReweightedHinge
from effattack.attacks.published.ilfo import DesiredStates
from effattack.attacks.searches.best import Best, ranked
from effattack.attacks.searches.projected import ProjectedAdam, ProjectedGradient, constant
from effattack.threats import ArrayThreat

WANTS: dict[str, Objective] = {
    "hinge": MarginHinge(0.05),
    "fine": MarginHinge(0.001),
    "states": DesiredStates(1.0, 0.05),
}
SEARCHES: dict[str, type[ProjectedGradient]] = {
    "gradient": ProjectedGradient,
    "adam": ProjectedAdam,
}


class Rounds(Attack):
    """One objective, again and again; each image keeps its best.

    Args:
        victim, eps, threat, seed: see :class:`~effattack.attacks.base.Attack`.
        wants: one of ``WANTS``.
        by: one of ``SEARCHES``.
        refined: every round but the first goes on from the best, its gates reweighted anew; else
            each starts at a random point.
        rounds: runs.
        steps: gradients of each.
        rate: learning rate of Adam, as a share of the range.
    """

    threat: ArrayThreat

    wants: str = "hinge"
    by: str = "gradient"
    refined: bool = False
    rounds: int = 10
    steps: int = 200
    rate: float = 0.01

    def prepare(self) -> None:
        check_objective(WANTS[self.wants], self.victim)

    @property
    def gradients(self) -> int:
        return self.rounds * self.steps

    def search(self, first: float) -> ProjectedGradient:
        """Of a round."""
        if SEARCHES[self.by] is ProjectedAdam:
            return ProjectedAdam(self.steps, constant(self.rate))
        return house_search(self.steps, first)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        threat = self.threat.placed(clean, generator)
        best = Best.of(clean, goal)
        for number in range(self.rounds):
            best.rank.value.fill_(-float("inf"))
            objective, start, first = WANTS[self.wants], threat.start(clean, generator), 1.0
            if self.refined and number:
                objective = ReweightedHinge(0.05, self.seed + number)
                start, first = best.inputs.clone(), 0.5
            self.search(first).climb(best, start, clean, threat, objective, goal, number)
        return best.inputs


class Seeds(Attack):
    """AutoSlow with ten seeds of its own; each image keeps its best."""

    threat: ArrayThreat

    count: int = 10

    def prepare(self) -> None:
        self.members = [
            AutoSlow(self.victim, threat=self.threat, seed=1000 + 10 * self.seed + number)
            for number in range(self.count)
        ]

    @property
    def gradients(self) -> int:
        return sum(each.gradients for each in self.members)

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        best, rows = Best.of(clean, goal), torch.arange(len(clean), device=clean.device)
        for each in self.members:
            found = each.run(clean, goal, Generator().manual_seed(each.seed))
            with torch.no_grad():
                trace = goal.victim.trace(found)
            best.update(rows, found, ranked(trace, goal, torch.zeros_like(trace.logits[:, 0])))
        return best.inputs
