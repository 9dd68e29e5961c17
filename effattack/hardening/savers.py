"""The models of a cascade that learn, alone: the others run neither in ascents nor in training."""

from __future__ import annotations

from math import nan
from typing import Any

import torch
from torch import Tensor

from effattack.victim import Gate, Trace, Victim
from effattack.victim.structure import Models


class Savers(Victim):
    """All models of a cascade but the last, as a victim that is only trained.

    It has no deployed path. Its trace holds what training reads: the logits of its models, and the
    gates of handing on, where the rule has a margin.

    Args:
        cascade: whose models they are; they are shared.
        structure: what it is made of.
    """

    def __init__(self, cascade: Victim, structure: Models) -> None:
        super().__init__(
            name=cascade.name,
            family=cascade.family,
            domain=cascade.domain,
            task=cascade.task,
            max_macs=cascade.max_macs,
        )
        self.models = torch.nn.ModuleList(structure.models[:-1])
        self._rule: Any = structure.criterion
        self._names, self._costs = structure.gates, structure.costs

    def trace(self, batch: Tensor) -> Trace:
        said = torch.stack([model(batch.clone()) for model in self.models], dim=1)
        gates, reached = [], torch.ones(len(said), dtype=torch.bool, device=said.device)
        for stage in range(self._rule.earliest, len(self.models)):
            seen = said[:, : stage + 1]
            name, cost = self._names[stage], self._costs[-1] - self._costs[stage]
            active = reached & self._rule.go_on(seen)
            margin = self._rule.margin(seen)
            gates.append(Gate(name, margin, active, reached, cost, self._rule.proxy, pushed=True))
            reached = active
        unknown = torch.full((len(said),), nan, dtype=torch.float64)
        return Trace(said[:, -1], tuple(gates), unknown, stage_logits=said)

    def structure(self) -> Models:
        return Models(tuple(self.models), self._rule, self._names, self._costs[:-1])
