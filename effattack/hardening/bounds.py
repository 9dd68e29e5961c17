"""Training through interval bounds: the loss is of the worst logits that any input could give.

Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust
Models", 2018 (arXiv 1810.12715): an interval around each input is carried through the layers; the
budget grows from 0 on, and so does the weight of the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import NotApplicable, UsageError
from effattack.hardening.inner import answers_loss
from effattack.hardening.losses import Lesson
from effattack.threats import Linf
from effattack.victim import Trace, Victim
from effattack.victim.structure import Exits, Models

MONOTONE = (
    *(nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d),
    *(nn.Flatten, nn.Identity, nn.Dropout, nn.MaxPool1d, nn.AvgPool1d),
)
"""In eval mode: an end of an interval gives an end of the next."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Interval(NamedTuple):
    """Every value lies between two others, of one shape."""

    lower: Tensor
    upper: Tensor


def through(module: nn.Module, given: Interval) -> Interval:
    """The interval behind a module in eval mode.

    Raises:
        NotApplicable: for a layer that it has no rule for.
    """
    if isinstance(module, nn.Sequential):
        for layer in module:
            given = through(layer, given)
        return given
    if isinstance(module, MONOTONE):
        return Interval(module(given.lower), module(given.upper))
    middle, radius = (given.upper + given.lower) / 2, (given.upper - given.lower) / 2
    if isinstance(module, nn.Linear):
        wide = F.linear(radius, module.weight.abs())
    elif isinstance(module, nn.Conv1d | nn.Conv2d) and module.padding_mode == "zeros":
        convolve: Any = F.conv1d if isinstance(module, nn.Conv1d) else F.conv2d
        shape = module.stride, module.padding, module.dilation, module.groups
        wide = convolve(radius, module.weight.abs(), None, *shape)
    elif isinstance(module, NORMS) and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight.abs()
        wide = radius * scale.view(1, -1, *[1] * (radius.dim() - 2))
    else:
        raise NotApplicable(
            f"interval bounds have no rule for {type(module).__name__}: bound training applies to "
            "chains of linear layers, convolutions, batch norm, ReLU and pooling in nn.Sequential; "
            "methods 'answers', 'hinge' and 'both' apply"
        )
    centre = module(middle)
    return Interval(centre - wide, centre + wide)


def stage_intervals(victim: Victim, given: Interval) -> Iterator[Interval]:
    """Logits (B, classes) of every stage, as intervals, of intervals of inputs.

    Raises:
        NotApplicable: for a victim that is no chain of stages, or a layer that it has no rule for.
    """
    structure = victim.structure()
    if isinstance(structure, Models):
        yield from (through(model, given) for model in structure.models)
        return
    if not isinstance(structure, Exits):
        raise NotApplicable(
            f"{victim.name} does not say what stages it has (victim.structure()): bound training "
            "applies to early exits and cascades of plain layers"
        )
    features = Interval(*((end - structure.mean) / structure.std for end in given))
    for stage, head in zip(structure.stages, structure.heads, strict=True):
        features = through(stage, features)
        yield through(head, features)


@dataclass(frozen=True)
class Bounded:
    """(1 − κ) · CE(clean) + κ · CE(worst logits), summed over stages.

    The worst logits of a stage are the lower end for the label and the upper end for all others.
    Over the first ``ramp`` of the training, ε grows from 0 to the budget and κ from 0 to ``most``.

    Args:
        most: κ at the end.
        ramp: share of the training.
    """

    most: float = 0.5
    ramp: float = 0.6

    def __post_init__(self) -> None:
        if not 0 < self.most <= 1 or not 0 < self.ramp <= 1:
            raise UsageError(f"most = {self.most}, ramp = {self.ramp}: give shares in (0, 1]")

    def check(self, trace: Trace, victim: Victim) -> None:
        grey = victim.example(1)
        with torch.no_grad():
            list(stage_intervals(victim, Interval(grey, grey)))

    def __call__(self, lesson: Lesson) -> Tensor:
        victim, clean, labels, threat, _, progress = lesson
        if not isinstance(threat, Linf):
            raise NotApplicable(f"bound training is for l-inf budgets, not {threat}")
        grown = min(1.0, progress / self.ramp)
        low, high = threat.domain.low, threat.domain.high
        reach = grown * threat.radius
        given = Interval((clean - reach).clamp(min=low), (clean + reach).clamp(max=high))
        bounded = clean.new_zeros(len(clean))
        for logits in stage_intervals(victim, given):
            own = F.one_hot(labels, logits.lower.shape[1]).bool()
            worst = torch.where(own, logits.lower, logits.upper)
            bounded = bounded + F.cross_entropy(worst, labels, reduction="none")
        weight = grown * self.most
        return (1 - weight) * answers_loss(victim.trace(clean), labels) + weight * bounded
