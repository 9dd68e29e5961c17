"""A victim as a chain of classifiers, each a step of one network: what exits and cascades share."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from effattack.certify.traced import At, Network
from effattack.errors import NotApplicable
from effattack.victim import Victim
from effattack.victim.structure import Exits, Models


@runtime_checkable
class Bounded(Protocol):
    """A criterion that can tell when all inputs of a threat stop."""

    def surely_stops(self, lead: Tensor, stage: int, slip: float) -> bool:
        """Whether the chain stops at a stage whatever the logits, if the top class leads so far.

        Args:
            lead: (classes,), by how much the logit of one class leads each other one, at least.
            stage: which one.
            slip: what the rounding of the deployed criterion may add to its doubt.
        """
        ...


class Chain(NamedTuple):
    """Classifiers in a row, the first that is sure answers.

    Attributes:
        network: all of them.
        logits: the number of the step that gives each one's logits (classes, 1, 1).
        costs: work of stopping at each.
        criterion: when to stop.
        dtype: what the victim computes in.
    """

    network: Network
    logits: tuple[int, ...]
    costs: tuple[float, ...]
    criterion: Bounded
    dtype: torch.dtype

    @classmethod
    def of(cls, victim: Victim) -> Chain:
        """Of a victim.

        Raises:
            NotApplicable: if it is no chain of classifiers of images of one size, its criterion
                cannot tell, or a part of it is not understood.
        """
        structure, shape = victim.structure(), victim.input_shape
        if not isinstance(structure, Exits | Models) or len(shape or ()) != 3 or None in shape:
            raise NotApplicable(
                f"linear bounds do not cover {victim.name}, which is no chain of stages or models "
                "on images of one size: they cover EarlyExit, SDN, Cascade and TinySaver of "
                "effattack.models_zoo, and victims whose structure() says what they are made of"
            )
        criterion = structure.criterion
        if not isinstance(criterion, Bounded):
            raise NotApplicable(
                f"linear bounds do not cover {criterion!r}, the criterion of "
                f"{victim.name}: they cover those with surely_stops, such as Confidence and Margin"
            )
        network = Network(shape)
        if isinstance(structure, Exits):
            logits = _exits(network, structure)
        else:
            logits = _models(network, structure)
        return cls(network, logits, structure.costs, criterion, victim.dtype)


NORMALISED = 3
"""Roundings of (x − mean) / std."""


def _exits(network: Network, exits: Exits) -> tuple[int, ...]:
    mean, std = (torch.as_tensor(each).double().cpu() for each in (exits.mean, exits.std))
    at = network.scaled(At(0), 1 / std, -mean / std, (mean / std).abs(), NORMALISED)
    logits = []
    for stage, head in zip(exits.stages[:-1], exits.heads[:-1], strict=True):
        at = network.grow(stage, at)
        logits.append(network.grow(head, at).number)
    return tuple(logits)


def _models(network: Network, models: Models) -> tuple[int, ...]:
    return tuple(network.grow(model, At(0)).number for model in models.models[:-1])
