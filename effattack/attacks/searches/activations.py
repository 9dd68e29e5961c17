"""What sponge attacks measure: how large and how dense the activations of a model are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effattack.errors import NotApplicable
from effattack.victim import Victim

KINDS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus),
)
"""Modules whose outputs are activations."""


class Layer(NamedTuple):
    """One call of an activation module."""

    norm: Tensor
    """(B,) Euclidean norm."""
    nonzero: Tensor
    """(B,) values that are not zero."""
    size: int
    """Values of one image."""


class Activations:
    """Notes what the activation modules of a victim put out while :meth:`listening`.

    Only modules are heard: an activation that a model calls as a function is not.
    """

    def __init__(self) -> None:
        self._heard: list[Layer] = []

    @contextmanager
    def listening(self, victim: Victim) -> Iterator[None]:
        """Listen to the victim's modules inside; leaves no hook behind."""
        hooks = [module.register_forward_hook(self._note) for module in activation_modules(victim)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            self._heard.clear()

    def _note(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        values = output.flatten(1)
        self._heard.append(Layer(values.norm(dim=1), (values != 0).sum(1), values.shape[1]))

    def take(self, batch: int) -> list[Layer]:
        """All that was heard since the last time, of one trace of ``batch`` images.

        Raises:
            NotApplicable: if the modules do not see one row per image.
        """
        heard, self._heard = self._heard, []
        if not heard or any(len(layer.norm) != batch for layer in heard):
            rows = sorted({len(layer.norm) for layer in heard})
            raise NotApplicable(
                f"sponge attacks need activation modules that run in trace() with one row per "
                f"image: {batch} images gave outputs of {rows} rows"
            )
        return heard


def activation_modules(victim: Victim) -> list[nn.Module]:
    """The activation modules of a victim, each once."""
    return [module for module in victim.modules() if isinstance(module, KINDS)]


def why_unseen(victim: Victim) -> str | None:
    """Why the activations of a victim cannot be seen; None if they can."""
    if victim.sees == "answers":
        return f"sponge attacks look into the model, and {victim.name} cannot be opened"
    if not activation_modules(victim):
        return (
            f"{victim.name} has no activation modules (nn.ReLU, nn.GELU, ...): sponge attacks need "
            "some; a model that calls F.relu can be given nn.ReLU in its place"
        )
    return None


def total_norm(layers: list[Layer]) -> Tensor:
    """(B,) sum of the norms of all layers."""
    return torch.stack([layer.norm for layer in layers]).sum(0)


def density(layers: list[Layer]) -> Tensor:
    """(B,) share of all activations that are not zero."""
    nonzero = torch.stack([layer.nonzero for layer in layers]).sum(0)
    return nonzero.double() / sum(layer.size for layer in layers)
