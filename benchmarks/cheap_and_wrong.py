"""The attack on answers that a cheap victim should fear: wrong, and wrong early.

A victim that was trained to stay cheap could have learned to be sure of anything. This attack asks
for that: of all iterates each image keeps one that the deployed path gets wrong, if there is any,
and among such the one that cost least.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import BatchGoal, Goal
from effattack.attacks.searches.best import Best, Rank, wrong
from effattack.attacks.searches.projected import cosine, input_gradient
from effattack.threats import ArrayThreat
from effattack.victim import Trace


class CheapAndWrong(Attack):
    """Projected gradient on the cross-entropy of every stage, and on closed gates.

    Ascends Σ over stages of cross-entropy − Σ over reached gates of cost · max(margin, −κ) over
    max MACs, from a random point, its steps falling along a cosine from ε/2.

    Args:
        victim: a classifier with gates.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations.
        kappa: κ, in units of the margins.
        seed: of the random start.
    """

    kind: ClassVar[Kind] = "accuracy"
    threat: ArrayThreat

    steps: int = 50
    kappa: float = 0.05

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        threat, size = self.threat.placed(clean, generator), cosine(0.5)
        rows = torch.arange(len(clean), device=clean.device)
        best = Best(clean.clone(), _rank(goal.trace, goal))
        iterate = threat.start(clean, generator)
        for step in range(self.steps + 1):
            last = step == self.steps
            images = threat.on_grid(iterate, clean).detach()
            with torch.set_grad_enabled(not last):
                images.requires_grad_(not last)
                trace = goal.victim.trace(images)
                value = _entropies(trace, goal) - self._open(trace, goal)
            best.update(rows, images.detach(), _rank(trace, goal))
            goal.callback(best.step(0, step, self.steps))
            if last:
                break
            gradient = input_gradient(value, images, trace)
            moved = threat.ascend(iterate, gradient, size(step / self.steps))
            iterate = threat.project(moved, clean)
        return best.inputs

    def _open(self, trace: Trace, goal: Goal) -> Tensor:
        total = trace.logits.new_zeros(len(trace.logits))
        for gate in trace.gates:
            push = gate.margin.clamp(min=-self.kappa)
            total = total + (push * gate.cost * gate.reached).sum(1)
        return total / goal.victim.max_macs


def _entropies(trace: Trace, goal: Goal) -> Tensor:
    stages = trace.logits[:, None] if trace.stage_logits is None else trace.stage_logits
    labels = goal.labels[:, None].expand(stages.shape[:2])
    return F.cross_entropy(stages.transpose(1, 2), labels, reduction="none").sum(1)


def _rank(trace: Trace, goal: Goal) -> Rank:
    return Rank.of(wrong(trace, goal).double(), -goal.victim.spent(trace).detach())
