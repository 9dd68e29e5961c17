"""What a network is trained to make small, per input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from effattack.errors import UsageError
from effattack.hardening.inner import Inner, answers_loss
from effattack.threats import ArrayThreat
from effattack.victim import Trace, Victim


class Lesson(NamedTuple):
    """One batch of the training."""

    victim: Victim
    """As it learns, in eval mode."""
    inputs: Tensor
    """(B, ...), clean."""
    labels: Tensor
    """(B,)."""
    threat: ArrayThreat
    """What is trained against."""
    generator: Generator
    """Of all random numbers."""
    progress: float
    """Share of the training that is done, in [0, 1)."""


class Losses(Protocol):
    """Losses of a batch, one per input."""

    def check(self, trace: Trace, victim: Victim) -> None:
        """Raise NotApplicable where the victim lacks what is asked for."""

    def __call__(self, lesson: Lesson) -> Tensor:
        """(B,), differentiable in the weights."""
        ...


@dataclass(frozen=True)
class Attacked:
    """Cross-entropy of all stages on attacked inputs and on clean ones, and what their gates push.

    loss = CE(attacked) + c · CE(clean) + m · (push(attacked) + c · push(clean)), c ``clean`` and
    m ``margins``; CE is summed over stages, push is :func:`pushes`.

    Batch norm keeps its stored statistics, as when deployed: those of attacked inputs are others,
    and a network trained on a mixture would meet neither.

    Args:
        inner: makes the attacked inputs.
        clean: weight of the clean inputs.
        margins: weight of the margins; 0: answers alone are trained.
        least: margins below it weigh nothing more.
    """

    inner: Inner
    clean: float = 0.5
    margins: float = 0.0
    least: float = -0.5

    def __post_init__(self) -> None:
        for name in ("clean", "margins"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name} = {getattr(self, name)}: give a weight of 0 or more")
        if not -1 <= self.least <= 1:
            raise UsageError(f"least = {self.least}: margins lie in [-1, 1]")

    def check(self, trace: Trace, victim: Victim) -> None:
        self.inner.check(trace, victim)

    def __call__(self, lesson: Lesson) -> Tensor:
        victim, clean, labels, threat, generator, _ = lesson
        attacked = self.inner(victim, clean, labels, threat, generator)
        trace = victim.trace(torch.cat([attacked, clean]))
        losses = answers_loss(trace, torch.cat([labels, labels]))
        if self.margins:
            losses = losses + self.margins * pushes(trace, victim, self.least)
        of_attacked, of_clean = losses.chunk(2)
        return of_attacked + self.clean * of_clean


def pushes(trace: Trace, victim: Victim, least: float) -> Tensor:
    """(B,): Σ cost · max(margin, ``least``) over reached units, over max MACs.

    The house objective turned round: a network that learns to lower it saves more. Margins below
    ``least`` are safe, and weigh nothing more. Units of stages in a row count reached or not.
    """
    total = trace.logits.new_zeros(len(trace.logits))
    for gate in trace.gates:
        push = gate.margin.clamp(min=least)
        if not gate.pushed:
            push = torch.where(gate.reached, push, torch.zeros_like(push))
        total = total + (push * gate.cost).sum(1)
    return total / victim.max_macs
