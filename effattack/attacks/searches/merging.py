"""What GradAuto and GradMDM share: opening gates without closing those that are open."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal
from effattack.attacks.searches.penalised import PenalisedAttack, Pull
from effattack.attacks.searches.projected import input_gradient
from effattack.errors import NotApplicable
from effattack.threats.arrays import per_input, unit
from effattack.victim import Trace, Victim

SHARES = "shares"
"""In ``trace.aux``: (B, units), σ of every unit in the order of the gates; 1/2 decides."""


class MergedPull(Pull):
    """Two wants of the gates, merged by direction.

    Of the gradient that opens closed gates, what opposes the gradient that keeps open gates open is
    taken away.
    """

    attack: ClassVar[str]
    """Whose pull it is."""

    @abstractmethod
    def wants(self, shares: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """Shares (B, units) -> how open the open gates are, and how little the others are closed.

        Both are (B,), higher is better; ``step`` is infinite for the final judgement.
        """

    def check(self, trace: Trace, victim: Victim) -> None:
        if SHARES not in trace.aux:
            raise NotApplicable(sigmoid_gates_needed(self.attack, victim))

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return self.wants(reached_shares(trace), math.inf)[1]

    def direction(self, trace: Trace, images: Tensor, goal: Goal, step: int) -> Tensor:
        kept, opened = self.wants(reached_shares(trace), step)
        keep = input_gradient(kept, images, trace, retain_graph=True)
        return merged(input_gradient(opened, images, trace), keep)


class MergedAttack(PenalisedAttack):
    """An attack on sigmoid gates by a merged pull: several gradients per step."""

    @property
    def gradients(self) -> int:
        kept_answer = bool(self.settings.get("logits_weight"))
        return super().gradients * (3 if kept_answer else 2)

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.family in ("layer skipping", "token sparsification"):
            return None
        return sigmoid_gates_needed(cls.__name__, victim)


def reached_shares(trace: Trace) -> Tensor:
    """(B, units) shares; 1/2, neither open nor closed, where a gate was not reached."""
    reached = [gate.reached for gate in trace.gates]
    return torch.where(torch.cat(reached, dim=1), trace.aux[SHARES], 0.5)


def merged(wanted: Tensor, keep: Tensor) -> Tensor:
    """``wanted`` (B, ...) without what opposes ``keep``, image by image."""
    direction = unit(keep)
    along = (wanted * direction).flatten(1).sum(1).clamp_max(0)
    return wanted - per_input(along, direction) * direction


def sigmoid_gates_needed(attack: str, victim: Victim) -> str:
    """Why an attack on gate values does not apply."""
    return (
        f"{attack} needs sigmoid gates, shown as aux['{SHARES}'] (layer skipping, AdaViT); "
        f"{victim.name} is a victim of {victim.family}"
    )
