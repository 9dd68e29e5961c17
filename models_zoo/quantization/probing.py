"""What all victims here share: the float model probed, and changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs
from effattack.errors import UsageError
from effattack.victim import Trace, Victim

Kinds = tuple[type[nn.Module], ...]


class LayerCall(NamedTuple):
    """One use of a layer while one image runs through a model."""

    name: str
    """Dotted name of the layer."""
    positions: int
    """How often every weight is used: rows of a linear layer, output pixels of a convolution."""
    inputs: int
    """Features in (channels per group)."""
    outputs: int
    """Features (channels) out."""
    macs: int


class Probe(NamedTuple):
    """What one blank image shows of a float model."""

    macs: int
    classes: int
    calls: tuple[LayerCall, ...]
    """Of the layers asked for, in the order of evaluation."""


class ConstantVictim(Victim):
    """A changed float model that executes the MACs of the float model, on every image.

    Args:
        model: the changed model.
        float_model: what it was made of.
        probed: the same, probed.
        settings: ``name``, ``input_shape``, ``data``.
    """

    def __init__(
        self, model: nn.Module, float_model: nn.Module, probed: Probe, **settings: Any
    ) -> None:
        super().__init__(
            family="quantization",
            num_classes=probed.classes,
            max_macs=probed.macs,
            dense_macs=probed.macs,
            constant=True,
            **settings,
        )
        self.model = model
        self._borrowed = (float_model,)

    @property
    def float_model(self) -> nn.Module:
        """The user's own float model, which attacks may be transferred from; no part of this."""
        return self._borrowed[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def differentiable(self, images: Tensor) -> Tensor:
        """The same logits, with a gradient to the pixels."""
        return self.model(images)

    def trace(self, images: Tensor) -> Trace:
        macs = images.new_full((len(images),), self.max_macs, dtype=torch.float64)
        return Trace(logits=self.differentiable(images), gates=(), macs=macs)


def probe(model: nn.Module, input_shape: tuple[int, ...], kinds: Kinds = (nn.Linear,)) -> Probe:
    """Run a float model once, in eval mode, and note which layers it uses.

    Raises:
        UsageError: if it has no parameters, or does not return plain logits.
    """
    calls = []

    def note(name: str, layer: Any, _: Tensor, out: Tensor) -> None:
        outputs, inputs = layer.weight.shape[:2]
        positions = out.numel() // outputs
        calls.append(LayerCall(name, positions, inputs, outputs, positions * layer.weight.numel()))

    parameter = next(model.parameters(), None)
    if parameter is None:
        raise UsageError(f"{type(model).__name__} has no parameters: there is nothing to change")
    blank = parameter.new_zeros(1, *input_shape)
    with observed(model, kinds, note), torch.no_grad():
        logits = model.eval()(blank)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise UsageError(
            f"{type(model).__name__} does not return plain logits (B, classes): wrap it in a "
            "module whose forward does"
        )
    return Probe(count_macs(model, blank), logits.shape[1], tuple(calls))


@contextmanager
def observed(
    model: nn.Module, kinds: Kinds, note: Callable[[str, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call ``note(name, layer, input, output)`` after every use of the layers of some kinds."""
    hooks = [
        layer.register_forward_hook(lambda m, args, out, name=name: note(name, m, args[0], out))
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def replaced(model: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The model with some of its layers, wherever they occur, replaced in place."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child in layers:
                parent._modules[name] = layers[child]
    return layers.get(model, model)


def bit_operations(
    macs: Tensor, quantized_macs: float, bits: tuple[int, int | None], dtype: torch.dtype
) -> Tensor:
    """MACs x weight bits x activation bits; what is not quantized counts with the bits of floats.

    Args:
        macs: (B,) executed MACs.
        quantized_macs: those among them with quantized weights, of every image.
        bits: of the quantized weights and activations; None for activations in floating point.
        dtype: of the floating-point parameters.
    """
    floating = torch.finfo(dtype).bits
    product = bits[0] * (floating if bits[1] is None else bits[1])
    return quantized_macs * product + (macs - quantized_macs) * floating * floating
