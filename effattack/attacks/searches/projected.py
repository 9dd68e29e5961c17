"""How attacks on arrays look: projected gradient ascent, judged by executed work.

Every iterate is evaluated on the grid of the domain. Of all iterates and restarts, each input keeps
the one on which the victim did most work on its hard path; ties go to the higher objective, so that
a decision is opened beyond rounding. A surrogate never decides against the work.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.best import Best, ranked, unfinished
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.memory import Heading, Memory, Moments
from effattack.errors import GradientError, UsageError
from effattack.threats import ArrayThreat
from effattack.victim import Trace
from effattack.victim.door import in_words

Schedule = Callable[[float], float]
"""Progress in [0, 1) -> step size as a fraction of the budget."""


def cosine(first: float, last: float = 0.0) -> Schedule:
    """Falls from ``first`` to ``last`` along half a cosine."""
    return lambda progress: last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine_restarts(first: float, last: float, cycles: int) -> Schedule:
    """The same, ``cycles`` times over (warm restarts: Loshchilov and Hutter, ICLR 2017)."""
    fall = cosine(first, last)
    return lambda progress: fall(progress * cycles % 1)


def constant(size: float) -> Schedule:
    """The same step throughout."""
    return lambda progress: size


@dataclass(frozen=True)
class ProjectedGradient(Climb):
    """PGD over any threat: the threat knows what a steepest step is.

    Args:
        steps, random_start, restarts, accept, ask: see :class:`Climb`.
        schedule: step size over progress, in fractions of the budget.
        momentum: how much of the last direction is kept (Dong et al., "Boosting Adversarial Attacks
            with Momentum", CVPR 2018, arXiv 1710.06081): directions add up gradients of a mean
            magnitude of 1, each input's own; where a gradient is 0, the last direction holds.
    """

    schedule: Schedule
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"momentum = {self.momentum}: give a share in [0, 1]")

    def climb(
        self,
        best: Best,
        start: Tensor,
        clean: Tensor,
        threat: ArrayThreat,
        objective: Objective,
        goal: Goal,
        restart: int = 0,
    ) -> None:
        rows = torch.arange(len(clean), device=clean.device)
        whole, iterate, memory = goal, start, self.memory(start)
        for step in range(self.steps + 1):
            if (going := unfinished(best, rows, whole)) is not None:
                rows, iterate, threat = rows[going], iterate[going], threat.rows(going)
                clean, goal, memory = clean[going], goal.rows(going), memory.rows(going)
                if len(rows) == 0:
                    return
            inputs = threat.on_grid(iterate, clean).detach()
            last = step == self.steps
            with torch.set_grad_enabled(not last):
                inputs.requires_grad_(not last)
                trace = goal.victim.trace(inputs)
                value = objective(trace, goal)
            rank = ranked(trace, goal, value, accept=self.accept, ask=self.ask)
            best.update(rows, inputs.detach(), rank)
            goal.callback(best.step(restart, step, self.steps))
            if last:
                return
            memory = self.after(memory, inputs, trace, value, objective, goal)
            size = self.schedule(step / self.steps)
            iterate = threat.project(self.moved(iterate, memory, size, threat, trace), clean)

    def memory(self, start: Tensor) -> Memory:
        """Of gradients, before the first of them."""
        return Heading(torch.zeros_like(start), self.momentum)

    def after(
        self,
        memory: Memory,
        inputs: Tensor,
        trace: Trace,
        value: Tensor,
        objective: Objective,
        goal: Goal,
    ) -> Memory:
        """What is remembered once an iterate is: the gradient of its value."""
        return memory.after(input_gradient(value, inputs, trace))

    def moved(
        self, iterate: Tensor, memory: Memory, size: float, threat: ArrayThreat, trace: Trace
    ) -> Tensor:
        """One step on from where ``trace`` was taken: the threat's own steepest one."""
        return threat.ascend(iterate, memory.direction(), size)


@dataclass(frozen=True)
class ProjectedAdam(ProjectedGradient):
    """Adam inside the threat: ``schedule`` is its learning rate, as a share of the range."""

    def memory(self, start: Tensor) -> Memory:
        return Moments.none(start)

    def moved(
        self, iterate: Tensor, memory: Memory, size: float, threat: ArrayThreat, trace: Trace
    ) -> Tensor:
        return iterate + size * threat.span * memory.direction()


def input_gradient(
    value: Tensor, inputs: Tensor, trace: Trace, *, retain_graph: bool = False
) -> Tensor:
    """Gradient of Σ value in the inputs, of their shape.

    ``retain_graph`` if another gradient through the same trace is to follow.

    Raises:
        GradientError: if no gradient reaches the pixels, with the gate and the remedy.
    """
    gradient = None
    deaf = [g.name for g in trace.gates if not g.margin.requires_grad and g.reached.any()]
    if value.requires_grad and not deaf:
        with in_words("trace"):
            (gradient,) = torch.autograd.grad(
                value.sum(), inputs, allow_unused=True, retain_graph=retain_graph
            )
    if gradient is None:
        where = f"gates {', '.join(deaf)}" if deaf else "the objective"
        raise GradientError(
            f"no gradient from {where} reaches the pixels: compute margins and logits in trace() "
            "without detach, no_grad or integer kernels (quantized layers need a straight-through "
            "estimator)"
        )
    if not torch.isfinite(gradient).all():
        raise GradientError(
            "the gradient in the pixels is NaN or infinite: look for 0 · log 0, a norm at 0 or a "
            "division by 0 in trace() or in the objective"
        )
    return gradient
