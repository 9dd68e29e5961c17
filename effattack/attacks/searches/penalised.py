"""How attacks without a budget look: Adam, with a price on the distance from the clean image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, check_objective
from effattack.attacks.objectives import Goal
from effattack.attacks.searches.best import Best, ranked
from effattack.attacks.searches.projected import constant, input_gradient
from effattack.attacks.searches.training import Adam
from effattack.errors import UsageError
from effattack.threats import ArrayThreat, Box, Threat
from effattack.victim import Trace, Victim


class Pull(ABC):
    """An objective that may choose its own direction, other than its gradient."""

    @abstractmethod
    def check(self, trace: Trace, victim: Victim) -> None:
        """Raise NotApplicable if the victim lacks what this objective needs."""

    @abstractmethod
    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        """(B,) values; higher is better for the attacker."""

    def direction(self, trace: Trace, images: Tensor, goal: Goal, step: int) -> Tensor:
        """Where to go from ``images``, of which ``trace`` is: (B, *input_shape)."""
        return input_gradient(self(trace, goal), images, trace)


@dataclass(frozen=True)
class Penalised:
    """Adam from the clean image along a pull minus ``weight`` · ‖x' - x‖², inside any threat.

    Of all iterates, on the 8-bit grid, each image keeps the one with most executed MACs; of equal
    ones, the one with the higher penalised objective.

    Args:
        steps: gradient evaluations.
        rate: learning rate, as a share of the range of the domain.
        weight: of the squared Euclidean distance.
    """

    steps: int
    rate: float
    weight: float

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps = {self.steps}: a search that never steps attacks nothing")

    def __call__(
        self, clean: Tensor, threat: ArrayThreat, pull: Pull, goal: Goal, generator: Generator
    ) -> Tensor:
        """The best images found, (B, *input_shape), on the 8-bit grid inside the threat."""
        threat = threat.placed(clean, generator)
        rows = torch.arange(len(clean), device=clean.device)
        best = Best.none(clean, clean.dtype)
        move = Adam(constant(self.rate)).begin(threat)
        iterate = clean
        for step in range(self.steps + 1):
            images = threat.on_grid(iterate, clean).detach()
            change, last = images - clean, step == self.steps
            with torch.set_grad_enabled(not last):
                images.requires_grad_(not last)
                trace = goal.victim.trace(images)
                value = pull(trace, goal)
            paid = value.detach() - self.weight * change.flatten(1).square().sum(1)
            best.update(rows, images.detach(), ranked(trace, goal, paid))
            goal.callback(best.step(0, step, self.steps))
            if not last:
                pulled = pull.direction(trace, images, goal, step)
                iterate = move(iterate, pulled - 2 * self.weight * change, step / self.steps)
                iterate = threat.project(iterate, clean)
        return best.inputs


class PenalisedAttack(Attack):
    """An attack on the compute that pays for distance: threat x pull x penalised search."""

    threat: ArrayThreat

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return Box()

    @abstractmethod
    def composed(self) -> tuple[Pull, Penalised]:
        """What to want and how to look, by the options."""

    def prepare(self) -> None:
        self.objective, self.search = self.composed()
        check_objective(self.objective, self.victim)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        return self.search(clean, self.threat, self.objective, goal, generator)
