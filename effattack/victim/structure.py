"""What a victim is made of, as a plain record: for whoever exports it, hardens it or bounds it.

:meth:`effattack.Victim.structure` returns one, or None where a victim is no chain of stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn


class Rule(Protocol):
    """When a chain of stages goes on; its thresholds are its own."""

    @property
    def earliest(self) -> int:
        """The first stage that can stop; the gates before it are no decisions."""
        ...

    def go_on(self, stage_logits: Tensor) -> Tensor:
        """Logits of the stages so far (B, stages, classes) -> the decision (B,) bool."""
        ...


@runtime_checkable
class LeadRule(Protocol):
    """A rule on score margins: a stage stops where its top logit leads the second by enough."""

    def least_lead(self, stage: int) -> float:
        """The lead at which that stage stops."""
        ...


def last(stage_logits: Tensor) -> Tensor:
    """The last stage's: (B, stages, classes) -> (B, classes)."""
    return stage_logits[:, -1]


class Exits(NamedTuple):
    """Stages in a row, with a classifier behind each; the last one always answers."""

    stages: tuple[nn.Module, ...]
    """Stage k maps the features of stage k - 1, stage 0 the normalised inputs. Features are a
    tensor, or a list or tuple of tensors."""
    heads: tuple[nn.Module, ...]
    """One per stage: features -> logits (B, classes)."""
    criterion: Rule
    gates: tuple[str, ...]
    """Of going on past each stage but the last; a name that is repeated is one gate of several
    units."""
    costs: tuple[float, ...]
    """MACs of leaving at each stage."""
    mean: Tensor | float = 0.0
    std: Tensor | float = 1.0
    """Inputs are normalised: (x - mean) / std."""
    unsure: Callable[[Tensor], Tensor] = last
    """The answer where no stage stopped: logits of all (B, stages, classes) -> (B, classes)."""


class Models(NamedTuple):
    """Classifiers of the same inputs, cheapest first; each hands on what it is unsure about."""

    models: tuple[nn.Module, ...]
    """Inputs -> logits (B, classes)."""
    criterion: Rule
    gates: tuple[str, ...]
    """Of handing on behind each model but the last."""
    costs: tuple[float, ...]
    """MACs of leaving at each model."""


class ScoreGate(NamedTuple):
    """When a block is computed: where the top of some scores leads the second by too little."""

    scores: nn.Module
    """The features before the block -> scores (B, two or more)."""
    least_lead: float
    """The lead from which on the block is skipped."""


class Skips(NamedTuple):
    """Blocks in a row, of which some are computed only where their gate is unsure."""

    stem: nn.Module
    """Inputs -> the features of the first block."""
    blocks: tuple[nn.Module, ...]
    """Features -> features, shortcut included; a skipped one leaves them as they are."""
    gated: Mapping[int, ScoreGate]
    """Index of a block -> its gate; the others are always computed."""
    head: nn.Module
    """Features -> logits (B, classes)."""
    gates: tuple[str, ...]
    """Of computing each gated block, in order."""


Structure = Exits | Models | Skips
