"""A probe for the exam: all stages pushed towards one class, then towards the next.

    python benchmarks/exam.py --attacks "targeted:Targeted" --victims exam_exit,exam_cascade

The hinge leaves it to each stage which class becomes its second. Where two stages lean to different
classes they pull against each other, and no number of steps helps. After the multi-targeted
surrogate of Gowal et al., "An Alternative Surrogate Loss for PGD-based Adversarial Testing", 2019
(arXiv 1910.09338), which takes every other class in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import BatchGoal, Goal
from effattack.attacks.searches.best import Best
from effattack.errors import NotApplicable
from effattack.threats import ArrayThreat
from effattack.victim import Trace, Victim
from effattack.victim.margins import spread


@dataclass(frozen=True)
class Towards:
    """− Σ over closed gates of cost · max(z_top − z_j, 0) / spread of the stage's logits.

    Args:
        rank: of class j in the clean answer; 1 is its second.
        kappa: a gate whose margin exceeds it counts as open.
    """

    rank: int
    kappa: float = 0.05

    def check(self, trace: Trace, victim: Victim) -> None:
        if trace.stage_logits is None or len(trace.gates) != trace.stage_logits.shape[1] - 1:
            raise NotApplicable(f"{victim.name} shows no logits of stages, one per gate")

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert trace.stage_logits is not None
        order = goal.logits.argsort(1, descending=True)
        top, other = (order[:, k, None, None] for k in (0, self.rank))
        stages = trace.stage_logits[:, :-1]
        index = (len(stages), stages.shape[1], 1)
        ahead = stages.gather(2, top.expand(index)) - stages.gather(2, other.expand(index))
        behind = ahead.squeeze(2).clamp_min(0) / spread(stages)
        closed = torch.cat([gate.margin for gate in trace.gates], 1) < self.kappa
        costs = torch.tensor([float(gate.cost) for gate in trace.gates])
        return -(behind * closed * costs.to(behind)).sum(1) / goal.victim.max_macs


class Targeted(Attack):
    """Every other class in turn, the nearest in the clean answer first; from the clean input.

    Args:
        steps: gradient evaluations, shared by the classes.
    """

    threat: ArrayThreat

    steps: int = 200

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        try:
            Towards(1).check(victim.trace(victim.example(1)), victim)
        except NotApplicable as error:
            return str(error)
        return None

    def run(self, clean: Tensor, goal: BatchGoal, generator: Generator) -> Tensor:
        best, ranks = Best.of(clean, goal), self.victim.num_classes - 1
        search = house_search(max(1, self.steps // ranks), 0.5)
        for rank in range(1, ranks + 1):
            best.rank.value.fill_(-float("inf"))  # values of different objectives do not compare
            threat = self.threat.placed(clean, generator)
            search.climb(best, clean.clone(), clean, threat, Towards(rank), goal, rank)
        return best.inputs
