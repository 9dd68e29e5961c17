"""How a genetic algorithm looks: a pool per image, its best as parents, crossover and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.best import Best, ranked
from effattack.errors import UsageError
from effattack.threats import ArrayThreat


@dataclass(frozen=True)
class Evolution:
    """Each image breeds a pool of its own, whose fittest members are the parents of the next.

    A child takes every value from one of two parents at random, and some of its values anew from a
    random point of the budget. Parents stay in the pool. Fitness is the objective, of which no
    gradient is needed; what is returned is chosen by executed MACs, fitness deciding between equal
    ones.

    Args:
        pool: members, each image.
        generations: of which the first is random.
        parents: share of the pool.
        mutated: share of a child's values.
    """

    pool: int
    generations: int
    parents: float
    mutated: float

    def __post_init__(self) -> None:
        if self.pool < 2 or self.generations < 1:
            raise UsageError(
                f"pool = {self.pool} and generations = {self.generations}: a pool needs at least "
                "2 members and one generation"
            )
        if not (0 < self.parents < 1 and 0 <= self.mutated <= 1):
            raise UsageError(
                f"parents = {self.parents} and mutated = {self.mutated} are shares: give numbers "
                "between 0 and 1"
            )

    @property
    def couples(self) -> int:
        """How many members are parents."""
        return min(self.pool - 1, max(1, round(self.parents * self.pool)))

    def __call__(
        self,
        clean: Tensor,
        threat: ArrayThreat,
        objective: Objective,
        goal: Goal,
        generator: Generator,
    ) -> Tensor:
        """The best images found, (B, *input_shape), on the 8-bit grid inside the threat."""
        threat, best = threat.placed(clean, generator), Best.none(clean)
        with torch.no_grad():
            self._fitness(clean, objective, goal, best)
            members = torch.stack(
                [threat.on_grid(threat.start(clean, generator), clean) for _ in range(self.pool)]
            )
            fitness = torch.stack([self._fitness(m, objective, goal, best) for m in members])
            goal.callback(best.step(0, 0, self.generations))
            for generation in range(1, self.generations):
                members, fitness = self._fittest(members, fitness)
                bred = [
                    threat.on_grid(self._child(members, clean, threat, generator), clean)
                    for _ in range(self.pool - self.couples)
                ]
                grown = [self._fitness(child, objective, goal, best) for child in bred]
                members = torch.cat([members, torch.stack(bred)])
                fitness = torch.cat([fitness, torch.stack(grown)])
                goal.callback(best.step(0, generation, self.generations))
        return best.inputs

    def _fitness(self, images: Tensor, objective: Objective, goal: Goal, best: Best) -> Tensor:
        """(B,) fitness of one member of each image's pool."""
        trace = goal.victim.trace(images)
        value = objective(trace, goal).double()
        rows = torch.arange(len(images), device=images.device)
        best.update(rows, images, ranked(trace, goal, value))
        return value

    def _fittest(self, members: Tensor, fitness: Tensor) -> tuple[Tensor, Tensor]:
        """(pool, B, ...) -> (parents, B, ...), each image its own."""
        fitness, order = fitness.sort(dim=0, descending=True, stable=True)
        order = order[: self.couples]
        rows = torch.arange(members.shape[1], device=members.device)
        return members[order, rows], fitness[: self.couples]

    def _child(
        self, parents: Tensor, clean: Tensor, threat: ArrayThreat, generator: Generator
    ) -> Tensor:
        def chance() -> Tensor:
            return torch.rand(clean.shape, generator=generator).to(clean.device)

        pair = torch.randint(len(parents), (2, len(clean)), generator=generator).to(clean.device)
        mother, father = parents[pair, torch.arange(len(clean), device=clean.device)]
        child = torch.where(chance() < 0.5, mother, father)
        return torch.where(chance() < self.mutated, threat.start(clean, generator), child)
