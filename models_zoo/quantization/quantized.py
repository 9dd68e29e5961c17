"""Quantized victims: the work cannot depend on the input, the accuracy can suffer.

torchao's dynamic int8: weights are int8, activations are quantized per token at run time. As
shipped, the gradient is lost silently, so ``trace`` goes through a straight-through estimator
(Bengio et al. 2013, arXiv 1308.3432): the forward values are those of the int8 kernels, the
backward pass uses the dequantized weight.
"""

from __future__ import annotations

import copy
import logging
import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.measure.macs import count_macs
from effattack.victim import Trace, Victim


class Quantized(Victim):
    """Your own float model with its linear layers in int8 (torchao, dynamic activations).

    The model is copied, then quantized. There are no gates, and the MACs are constant.

    Args:
        model: any module (B, *input_shape) -> (B, classes) with ``nn.Linear`` layers.
        input_shape: (C, H, W) of one image.
        settings: ``name``, ``data``.

    Raises:
        UsageError: without torchao, or if the model has no linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        name: str = "Quantized",
        **settings: Any,
    ) -> None:
        if not any(isinstance(m, nn.Linear) for m in model.modules()):
            raise UsageError(
                f"{type(model).__name__} has no nn.Linear: dynamic int8 would change nothing"
            )
        parameter = next(model.parameters())
        blank = parameter.new_zeros(1, *input_shape)
        macs = count_macs(model.eval(), blank)
        with torch.no_grad():
            classes = model(blank).shape[-1]
        super().__init__(
            name=name,
            family="quantization",
            input_shape=input_shape,
            num_classes=classes,
            max_macs=macs,
            dense_macs=macs,
            constant=True,
            **settings,
        )
        self.model = quantize_int8(model)
        self._traced = straight_through(self.model).eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def trace(self, images: Tensor) -> Trace:
        macs = torch.full((len(images),), self.max_macs, dtype=torch.float64, device=images.device)
        return Trace(logits=self._traced(images), gates=(), macs=macs)


def quantize_int8(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode, its linear layers int8 with dynamic activations.

    Raises:
        UsageError: if torchao is not installed.
    """
    torchao = _torchao()
    model = copy.deepcopy(model).eval().requires_grad_(False)
    torchao.quantize_(model, torchao.Int8DynamicActivationInt8WeightConfig())
    return model


def _torchao() -> Any:
    """torchao's quantization; what it and torch say of each other's versions is not repeated."""
    logger = logging.getLogger("torch.utils._pytree")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module("torchao.quantization")
    except ImportError as error:
        raise UsageError(
            f"int8 victims need torchao ({error}): pip install 'effattack[quant]'"
        ) from error
    finally:
        logger.setLevel(level)


class _StraightThroughLinear(torch.autograd.Function):
    """int8 values forward, the gradient of the dequantized linear layer backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] @ ctx.layer.weight.dequantize(), None


class _StraightThrough(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return _StraightThroughLinear.apply(x, self.layer)


def straight_through(model: nn.Module) -> nn.Module:
    """The same int8 model, sharing its layers, with a gradient to the pixels."""
    shared = {id(m): m for m in model.modules() if isinstance(m, nn.Linear)}
    twin = copy.deepcopy(model, memo=dict(shared))
    for name, layer in shared_linears(twin):
        parent = twin.get_submodule(name.rpartition(".")[0])
        setattr(parent, name.rpartition(".")[2], _StraightThrough(layer))
    return twin


def shared_linears(model: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Every linear layer by its dotted name."""
    return [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
