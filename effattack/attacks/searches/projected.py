"""How attacks look: projected gradient ascent, judged by executed MACs.

Every iterate is evaluated on the 8-bit grid. Of all iterates and restarts, each image keeps the
one on which the victim executed most MACs on its hard path; ties go to the higher objective, so
that a decision is opened beyond rounding. A surrogate never decides against the MACs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import (
    BatchGoal,
    Goal,
    Objective,
    Step,
    label_trails,
    prediction_leads,
    prediction_trails,
)
from effattack.errors import GradientError, UsageError
from effattack.threats import Threat
from effattack.victim import Trace, margin_slack
from effattack.victim.door import in_words
from effattack.victim.rounding import safe_macs

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


@dataclass
class Best:
    """The best iterate of each image so far."""

    images: Tensor
    macs: Tensor
    value: Tensor

    @classmethod
    def of(cls, clean: Tensor, goal: BatchGoal) -> Best:
        """The clean images themselves; any iterate that does as much work replaces them."""
        macs = goal.trace.macs.clone()
        return cls(clean.clone(), macs, torch.full_like(macs, -torch.inf, dtype=clean.dtype))

    def step(self, restart: int, step: int, steps: int) -> Step:
        """What a callback is told; its own copies."""
        return Step(restart, step, steps, self.macs.clone(), self.value.clone())

    def update(self, rows: Tensor, images: Tensor, macs: Tensor, value: Tensor) -> None:
        """Take over iterates of ``rows`` with more MACs, or as many and a higher value."""
        known = self.images[rows], self.macs[rows], self.value[rows]
        better = (macs > known[1]) | ((macs == known[1]) & (value > known[2]))
        wide = better.view(-1, *[1] * (images.dim() - 1))
        self.images[rows] = torch.where(wide, images, known[0])
        self.macs[rows] = torch.where(better, macs, known[1])
        self.value[rows] = torch.where(better, value, known[2])


Acceptance = Callable[[Trace, Goal], Tensor]
"""Which iterates count, (B,) bool; the clean image always does."""


def kept(trace: Trace, goal: Goal) -> Tensor:
    """Those that keep the clean prediction, beyond rounding."""
    return prediction_leads(trace.logits, goal) > margin_slack(trace.dtype)


def changed(trace: Trace, goal: Goal) -> Tensor:
    """Those that change the clean prediction, beyond rounding."""
    return prediction_trails(trace.logits, goal) > margin_slack(trace.dtype)


def wrong(trace: Trace, goal: Goal) -> Tensor:
    """Those whose prediction is not the label, beyond rounding."""
    return label_trails(trace.logits, goal) > margin_slack(trace.dtype)


@dataclass(frozen=True)
class ProjectedGradient:
    """PGD over any threat: the threat knows what a steepest step is.

    Args:
        steps: gradient evaluations per restart.
        schedule: step size over progress, in fractions of the budget.
        random_start: start at a random point, ``first``, not at the clean image.
        restarts: independent runs.
        accept: which iterates count; None: all.
        momentum: how much of the last direction is kept (Dong et al., "Boosting Adversarial Attacks
            with Momentum", CVPR 2018, arXiv 1710.06081): directions add up gradients of a mean
            magnitude of 1, each image's own; where a gradient is 0, the last direction holds.
        ask: what is asked beside work, of equal work the second criterion; None: nothing. An image
            is left alone only once it does the most work and what is asked holds.
    """

    steps: int
    schedule: Schedule
    random_start: bool = True
    restarts: int = 1
    momentum: float = 0.0
    accept: Acceptance | None = None
    ask: Acceptance | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.momentum <= 1:
            raise UsageError(f"momentum = {self.momentum}: give a share in [0, 1]")
        if self.steps < 1 or self.restarts < 1:
            raise UsageError(
                f"steps = {self.steps} and restarts = {self.restarts} must be at least 1: a search "
                "that never steps attacks nothing"
            )

    def __call__(
        self,
        clean: Tensor,
        threat: Threat,
        objective: Objective,
        goal: BatchGoal,
        generator: Generator,
    ) -> Tensor:
        """The best images found, (B, *input_shape), on the 8-bit grid inside the budget."""
        objective.check(goal.trace, goal.victim)
        best = Best.of(clean, goal)
        with torch.no_grad():
            best.value = objective(goal.trace, goal)
        best.macs -= self._unasked(goal.trace, goal)
        for restart in range(self.restarts):
            placed = threat.placed(clean, generator)
            start = self.first(clean, placed, generator) if self.random_start else clean
            self.climb(best, start, clean, placed, objective, goal, restart)
        return best.images

    def first(self, clean: Tensor, threat: Threat, generator: Generator) -> Tensor:
        """Where a random start lies: anywhere in the budget."""
        return threat.start(clean, generator)

    def climb(
        self,
        best: Best,
        start: Tensor,
        clean: Tensor,
        threat: Threat,
        objective: Objective,
        goal: Goal,
        restart: int = 0,
    ) -> None:
        """One run from ``start``, (B, *input_shape), by the images that can still gain work.

        Args:
            best: what is known of each image; updated.
            start: where it begins.
            clean: the clean images.
            threat: placed around them.
            objective: what to want.
            goal: what it refers to.
            restart: its number, for the callback.
        """
        rows = torch.arange(len(clean), device=clean.device)
        whole, iterate, heading = goal, start, torch.zeros_like(start)
        for step in range(self.steps + 1):
            if (going := unfinished(best, rows, whole)) is not None:
                rows, iterate, threat = rows[going], iterate[going], threat.rows(going)
                clean, goal, heading = clean[going], goal.rows(going), heading[going]
                if len(rows) == 0:
                    return
            images = threat.on_grid(iterate, clean).detach()
            last = step == self.steps
            with torch.set_grad_enabled(not last):
                images.requires_grad_(not last)
                trace = goal.victim.trace(images)
                value = objective(trace, goal)
            best.update(rows, images.detach(), self._accepted_macs(trace, goal), value.detach())
            goal.callback(best.step(restart, step, self.steps))
            if last:
                return
            heading = self.turned(heading, input_gradient(value, images, trace))
            size = self.schedule(step / self.steps)
            iterate = threat.project(threat.ascend(iterate, heading, size), clean)

    def turned(self, heading: Tensor, gradient: Tensor) -> Tensor:
        """The next direction, after one gradient more; both (B, *input_shape)."""
        if not self.momentum:
            return gradient
        size = gradient.abs().flatten(1).mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        return self.momentum * heading + gradient / size.view(-1, *[1] * (gradient.dim() - 1))

    def _accepted_macs(self, trace: Trace, goal: Goal) -> Tensor:
        macs = safe_macs(trace) - self._unasked(trace, goal)
        if self.accept is None:
            return macs
        return torch.where(self.accept(trace, goal), macs, -torch.inf)

    def _unasked(self, trace: Trace, goal: Goal) -> Tensor | float:
        """A quarter of a MAC where what is asked does not hold: it loses ties, and is not done."""
        return 0.0 if self.ask is None else 0.25 * ~self.ask(trace, goal)


def unfinished(best: Best, rows: Tensor, goal: Goal) -> Tensor | None:
    """(B,) bool: which rows can still gain work; None if all of them."""
    going = ~(best.macs[rows] >= goal.victim.max_macs)  # the max may be unknown: NaN
    return None if bool(going.all()) else going


def input_gradient(
    value: Tensor, images: Tensor, trace: Trace, *, retain_graph: bool = False
) -> Tensor:
    """Gradient of Σ value in the pixels, (B, *input_shape).

    ``retain_graph`` if another gradient through the same trace is to follow.

    Raises:
        GradientError: if no gradient reaches the pixels, with the gate and the remedy.
    """
    gradient = None
    deaf = [g.name for g in trace.gates if not g.margin.requires_grad and g.reached.any()]
    if value.requires_grad and not deaf:
        with in_words("trace"):
            (gradient,) = torch.autograd.grad(
                value.sum(), images, allow_unused=True, retain_graph=retain_graph
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
