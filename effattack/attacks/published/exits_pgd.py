"""Accuracy attacks that know of all exits, not only of the one that answers.

Hu et al., "Triple Wins: Boosting Accuracy, Robustness and Efficiency Together by Enabling
Input-Adaptive Inference", ICLR 2020 (arXiv 2002.10025); the baselines PGD-avg and
PGD-max of DeepSloth (Hong et al., ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import BatchGoal, Goal
from effattack.attacks.searches.best import Best, Rank
from effattack.attacks.searches.projected import cosine, input_gradient
from effattack.errors import NotApplicable
from effattack.threats import ArrayThreat
from effattack.victim import Trace, Victim
from effattack.victim.undisturbed import glance

Loss = Callable[[Tensor], Tensor]
"""Cross-entropies of all stages (B, stages) -> what is driven up, (B,)."""


class PGDAvg(Attack):
    """PGD on the mean cross-entropy of all exits ("average attack").

    Of all iterates each image keeps one that the deployed network gets wrong, if there is any, and
    among such the one with the highest mean; the paper keeps the last. Steps fall along a cosine
    from ε/4, iterates are rounded to 8 bits.

    Args:
        victim: an early-exit network or a cascade.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget in place of ``eps``.
        steps: gradient evaluations (per exit for :class:`PGDMax`).
        seed: of the random start.

    Raises:
        NotApplicable: for a victim without internal classifiers.
    """

    kind: ClassVar[Kind] = "accuracy"
    threat: ArrayThreat

    steps: int = 20

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if victim.family in ("early exit", "cascade"):
            return None
        return (
            f"{cls.__name__} needs internal classifiers, an early-exit network or a cascade; "
            f"{victim.name} is a victim of {victim.family}"
        )

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        best = Best(clean.clone(), _judged(goal.trace, goal)[1])
        for number, loss in enumerate(self._losses(goal)):
            self._climb(clean, loss, goal, generator, best, number)
        return best.inputs

    def _losses(self, goal: BatchGoal) -> list[Loss]:
        return [lambda entropies: entropies.mean(1)]

    def _climb(
        self,
        clean: Tensor,
        loss: Loss,
        goal: Goal,
        generator: Generator,
        best: Best,
        number: int,
    ) -> None:
        size, rows = cosine(0.25), torch.arange(len(clean), device=clean.device)
        threat = self.threat.placed(clean, generator)
        iterate = threat.start(clean, generator)
        for step in range(self.steps + 1):
            last = step == self.steps
            images = threat.on_grid(iterate, clean).detach()
            with torch.set_grad_enabled(not last):
                images.requires_grad_(not last)
                trace = goal.victim.trace(images)
                entropies, rank = _judged(trace, goal)
            best.update(rows, images.detach(), rank)
            goal.callback(best.step(number, step, self.steps))
            if last:
                return
            gradient = input_gradient(loss(entropies), images, trace)
            moved = threat.ascend(iterate, gradient, size(step / self.steps))
            iterate = threat.project(moved, clean)


class PGDMax(PGDAvg):
    """One PGD per exit, on its cross-entropy alone; the best of all ("max-average attack").

    The paper keeps, of these single attacks, the one with the highest mean; see :class:`PGDAvg`
    for how iterates are chosen here.
    """

    @property
    def gradients(self) -> int:
        stages = glance(self.victim).stage_logits
        return self.steps * (1 if stages is None else stages.shape[1])

    def _losses(self, goal: BatchGoal) -> list[Loss]:
        stages = goal.trace.stage_logits
        assert stages is not None
        return [partial(_of_stage, k) for k in range(stages.shape[1])]


def _of_stage(stage: int, entropies: Tensor) -> Tensor:
    return entropies[:, stage]


def _judged(trace: Trace, goal: Goal) -> tuple[Tensor, Rank]:
    """Cross-entropies (B, stages); ranked by whether the answer is wrong, and by their mean."""
    stages = trace.stage_logits
    if stages is None:
        raise NotApplicable(f"{goal.victim.name} shows no internal classifiers (stage_logits)")
    labels = goal.labels[:, None].expand(-1, stages.shape[1])
    entropies = F.cross_entropy(stages.transpose(1, 2), labels, reduction="none")
    wrong = (trace.logits.argmax(1) != goal.labels).double()
    return entropies, Rank.of(wrong, entropies.mean(1).detach())
