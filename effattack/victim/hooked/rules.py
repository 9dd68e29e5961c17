"""Rules: when a model saves work, as its own code compares it, and how far it is from that.

A rule says where work is **saved**: the model stops, skips or drops. ``above(0.9, confidence)`` is
``if confidence > 0.9: return``; ``below(0.01, attention)`` drops the tokens attended to less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.victim.margins import (
    bounded_margin,
    confidence_doubt,
    entropy_doubt,
    lead_doubt,
    spread,
)

Measure = Callable[[Tensor], Tensor]
"""The compared tensor -> what is compared: (B,) for one decision, (B, units) for several."""


class Decided(NamedTuple):
    """What a rule says of a tensor."""

    margin: Tensor
    """(B,) or (B, units): differentiable push towards "computed", in [-1, 1]."""
    active: Tensor
    """Same shape, bool: computed, not saved."""


class Rule(Protocol):
    """How a decision is taken; write your own where none below fits."""

    proxy: bool
    """The sign of the margin is not the decision."""

    def decide(self, tensor: Tensor) -> Decided:
        """What the model decides when it compares this tensor."""
        ...


def confidence(logits: Tensor) -> Tensor:
    """The largest softmax probability: (B, ..., classes) -> (B, ...)."""
    return logits.softmax(-1).amax(-1)


def entropy(logits: Tensor) -> Tensor:
    """Of the softmax, in nats: (B, ..., classes) -> (B, ...)."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def lead(logits: Tensor) -> Tensor:
    """Of the largest softmax probability over the second: (B, ..., classes) -> (B, ...)."""
    first, second = logits.softmax(-1).topk(2, dim=-1).values.unbind(-1)
    return first - second


_BEYOND: dict[Measure, Callable[[Tensor, float], Tensor]] = {
    confidence: lambda logits, threshold: -confidence_doubt(logits, threshold),
    entropy: entropy_doubt,
    lead: lambda logits, threshold: -lead_doubt(logits, threshold),
}
"""Measures of logits that saturate: how far they exceed a threshold, on a scale that does not."""


@dataclass(frozen=True)
class Threshold:
    """Work is saved on one side of a threshold; made by :func:`above` and :func:`below`.

    Args:
        value: the threshold, in units of the measure.
        measure: what is compared with it.
        side: 1 where work is saved above it, -1 below.
    """

    value: float
    measure: Measure
    side: int
    proxy = False

    def __str__(self) -> str:
        measure = getattr(self.measure, "__name__", repr(self.measure))
        return f"{'above' if self.side > 0 else 'below'}({self.value:g}, {measure})"

    @property
    def open(self) -> float:
        """The threshold at which nothing is saved."""
        return self.side * inf

    def decide(self, tensor: Tensor) -> Decided:
        measured = self.measure(tensor)
        active = ~(self.side * (measured - self.value) > 0)
        if self.measure in _BEYOND:
            beyond, scale = _BEYOND[self.measure](tensor, self.value), spread(tensor)
        else:
            beyond = measured - self.value
            scale = torch.full_like(beyond, abs(self.value) or 1.0)
        return Decided(bounded_margin(-self.side * beyond, scale, active), active)


def above(threshold: float, measure: Measure) -> Threshold:
    """The model saves work where the measure exceeds the threshold: it is sure, and stops.

    Args:
        threshold: as the model compares it.
        measure: :func:`confidence`, :func:`entropy`, :func:`lead`, or a function of the tensor.
    """
    return _threshold(threshold, measure, side=1)


def below(threshold: float, measure: Measure) -> Threshold:
    """The model saves work where the measure falls short of it: of a token nobody looks at, say."""
    return _threshold(threshold, measure, side=-1)


def _threshold(value: float, measure: Measure, side: int) -> Threshold:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = nan
    if isnan(number) or not callable(measure):
        raise UsageError(
            f"{'above' if side > 0 else 'below'}({value!r}, {measure!r}): give a number and a "
            "function of the tensor, such as above(0.9, confidence)"
        )
    return Threshold(number, measure, side)


@dataclass(frozen=True)
class Kept:
    """What is kept is chosen by no threshold (sampled, ranked); made by :func:`kept`."""

    mask: Callable[[Tensor], Tensor]
    push: Measure
    proxy = True

    def decide(self, tensor: Tensor) -> Decided:
        return Decided(self.push(tensor).clamp(-1, 1), self.mask(tensor.detach()))


def kept(mask: Callable[[Tensor], Tensor], push: Measure) -> Kept:
    """The model computes what the mask says.

    Args:
        mask: the compared tensor -> bool (B,) or (B, units), by the rule that the model uses.
        push: the compared tensor -> floats of the same shape, differentiable: what must rise for a
            unit to be kept, 0 about where it is; clipped to [-1, 1]. Its sign is not the decision.
    """
    if not (callable(mask) and callable(push)):
        raise UsageError(
            f"kept({mask!r}, {push!r}): give two functions of the tensor, to bool and to floats"
        )
    return Kept(mask, push)
