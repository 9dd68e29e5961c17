"""How training inputs are made: inner ascent on what an attacker could want, or noise.

Adversarial training: Madry et al., ICLR 2018 (arXiv 1706.06083). An ascent takes few steps and
keeps its last iterate, off the grid: the threat's own steepest steps, from a random point of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.attacks.objectives import Goal, Objective, require_gates
from effattack.attacks.searches.projected import input_gradient
from effattack.errors import UsageError
from effattack.threats import ArrayThreat
from effattack.victim import Trace, Victim


class Inner(Protocol):
    """Makes the inputs that a network is trained on."""

    def check(self, trace: Trace, victim: Victim) -> None:
        """Raise NotApplicable where the victim lacks what is asked for."""

    def __call__(
        self,
        victim: Victim,
        clean: Tensor,
        labels: Tensor,
        threat: ArrayThreat,
        generator: Generator,
    ) -> Tensor:
        """Inputs as shaped as ``clean`` (B, ...), detached; labels (B,)."""
        ...


def all_answers(trace: Trace) -> Tensor:
    """(B, stages, classes): logits of every stage, or the answer alone where there are none."""
    return trace.logits[:, None] if trace.stage_logits is None else trace.stage_logits


def answers_loss(trace: Trace, labels: Tensor) -> Tensor:
    """Cross-entropy (B,), summed over all stages."""
    logits = all_answers(trace)
    told = labels[:, None].expand(logits.shape[:2])
    return F.cross_entropy(logits.movedim(2, 1), told, reduction="none").sum(1)


@dataclass(frozen=True)
class WrongAnswers:
    """An attacker who wants every stage to be wrong: its cross-entropy, summed over stages.

    An unsure stage is a slow one, so that it slows as well, without a word about gates.
    """

    def check(self, trace: Trace, victim: Victim) -> None:
        """Applies to every classifier."""

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return answers_loss(trace, goal.labels)


@dataclass(frozen=True)
class Both:
    """Wrong and slow: the sum of two objectives."""

    one: Objective
    other: Objective

    def check(self, trace: Trace, victim: Victim) -> None:
        self.one.check(trace, victim)
        self.other.check(trace, victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return self.one(trace, goal) + self.other(trace, goal)


@dataclass(frozen=True)
class Ascent:
    """Few steps of projected gradient from a random point, each 2 / steps of the budget long.

    Args:
        objective: what the attacker wants.
        steps: gradients per input.
    """

    objective: Objective
    steps: int = 3

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps = {self.steps}: an ascent takes at least one")

    def check(self, trace: Trace, victim: Victim) -> None:
        self.objective.check(trace, victim)

    def __call__(
        self,
        victim: Victim,
        clean: Tensor,
        labels: Tensor,
        threat: ArrayThreat,
        generator: Generator,
    ) -> Tensor:
        placed = threat.placed(clean, generator)
        found = placed.start(clean, generator)
        for _ in range(self.steps):
            found = found.detach().requires_grad_()
            trace = victim.trace(found)
            value = self.objective(trace, Goal(victim, trace.logits, labels))
            gradient = input_gradient(value, found, trace)
            found = placed.project(placed.ascend(found, gradient, min(1.0, 2 / self.steps)), clean)
        return found.detach()


@dataclass(frozen=True)
class Noise:
    """Gaussian noise N(0, σ²), clipped to the range of the domain; no threat is asked.

    Args:
        sigma: σ, in units of the inputs, above 0.
    """

    sigma: float

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise UsageError(f"sigma = {self.sigma}: give a deviation above 0")

    def check(self, trace: Trace, victim: Victim) -> None:
        require_gates(trace, victim)

    def __call__(
        self,
        victim: Victim,
        clean: Tensor,
        labels: Tensor,
        threat: ArrayThreat,
        generator: Generator,
    ) -> Tensor:
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        noisy = clean + self.sigma * noise.to(clean.device)
        return noisy.clamp(threat.domain.low, threat.domain.high)
