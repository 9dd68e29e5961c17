"""Static int8 for a victim that is no single graph: each of its parts is exported by itself.

What decides stays in floats between them: confidences of exits, attention and sampling of tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.models_zoo.quantization.probing import observed
from effattack.models_zoo.quantization.static_int8 import (
    BATCH,
    calibrated,
    lowered,
    straight_through,
)
from effattack.victim import Victim


def in_static_int8(
    victim: Victim, parts: Sequence[nn.Module], images: Tensor
) -> tuple[Victim, Victim]:
    """Two copies of a victim whose parts run on int8 kernels; the second has gradients.

    Args:
        victim: in eval mode.
        parts: modules of it that map one tensor (B, ...) to one, for batches of any size.
        images: (B, *input_shape), held out; every part is calibrated on what enters it in
            ``trace``, where all images go through all stages.

    Raises:
        UsageError: as :func:`~effattack.models_zoo.quantization.static_int8.calibrated`, or for a
            part that takes no tensor.
    """
    deployed: dict[int, Any] = {}
    traced: dict[int, Any] = {}
    for part, entering in zip(parts, inputs_of(victim, parts, images), strict=True):
        rounded = calibrated(part, entering)
        kernels, soft = lowered(rounded, entering.shape[1:]), straight_through(rounded)
        by_rows = isinstance(part, nn.Linear)
        deployed[id(part)] = _ByRows(kernels) if by_rows else kernels
        followed = _StraightThrough(kernels, soft)
        traced[id(part)] = _ByRows(followed) if by_rows else followed
    return copy.deepcopy(victim, deployed), copy.deepcopy(victim, traced)


def inputs_of(victim: Victim, parts: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """What enters each part on the images: rows (N, features) of a linear layer, else (B, ...).

    Raises:
        UsageError: for a part that takes no tensor.
    """
    entered: dict[nn.Module, list[Tensor]] = {part: [] for part in parts}

    def note(name: str, layer: nn.Module, given: Any, _: Any) -> None:
        if layer not in entered:
            return
        if not isinstance(given, Tensor):
            raise UsageError(
                f"{name} of {victim.name} takes a {type(given).__name__}: static int8 exports "
                "parts that take one tensor"
            )
        entered[layer].append(given.flatten(0, -2) if isinstance(layer, nn.Linear) else given)

    kinds = tuple({type(part) for part in parts})
    with observed(victim, kinds, note), torch.no_grad():
        for some in images.split(BATCH):
            victim.trace(some)
    return [torch.cat(entered[part]) for part in parts]


class _ByRows(nn.Module):
    """A graph of (N, features), for tokens (..., features)."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, tokens: Tensor) -> Tensor:
        return self.graph(tokens.flatten(0, -2)).unflatten(0, tokens.shape[:-1])


class _Passed(torch.autograd.Function):
    """The values of one tensor, the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, soft: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, gradients[0]


class _StraightThrough(nn.Module):
    """The values of the int8 kernels, with the gradient of the graph that rounds in floats."""

    def __init__(self, kernels: nn.Module, soft: nn.Module) -> None:
        super().__init__()
        self.kernels, self.soft = kernels, soft

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            values = self.kernels(x)
        return _Passed.apply(values, self.soft(x)) if x.requires_grad else values
