"""Quantized victims: the work cannot depend on the input, the accuracy can suffer.

torchao's schemes: weights in few bits, activations in floating point or quantized per token at run
time. Where activations are rounded, the gradient is lost silently, so ``trace`` goes through a
straight-through estimator (Bengio et al. 2013, arXiv 1308.3432): the forward values are those of
the quantized kernels, the backward pass uses the dequantized weight.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import MissingPackage, UsageError, first_line, install, unknown_name
from effattack.models_zoo.quantization.probing import (
    ConstantVictim,
    bit_operations,
    probe,
    replaced,
)


@dataclass(frozen=True)
class Scheme:
    """How torchao quantizes the linear layers of a model.

    Args:
        config: torchao.quantization -> the configuration for its ``quantize_``.
        weight_bits: of the quantized weights.
        activation_bits: of the quantized activations; None where they stay in floating point, and
            the gradient survives.
        needs: what it takes to run, for the message where it does not.
    """

    config: Callable[[Any], Any]
    weight_bits: int
    activation_bits: int | None
    needs: str


TRIED = "torchao 0.17 or later"

SCHEMES: dict[str, Scheme] = {
    "int8_dynamic": Scheme(
        lambda ao: ao.Int8DynamicActivationInt8WeightConfig(version=2), 8, 8, TRIED
    ),
    "int8_weight_only": Scheme(lambda ao: ao.Int8WeightOnlyConfig(version=2), 8, None, TRIED),
    "int4_weight_only": Scheme(lambda ao: ao.IntxWeightOnlyConfig(torch.int4), 4, None, TRIED),
    "float8_dynamic": Scheme(
        lambda ao: ao.Float8DynamicActivationFloat8WeightConfig(),
        8,
        8,
        "a GPU with float8 kernels (CUDA compute capability 8.9, MI300, XPU)",
    ),
}
"""Name -> scheme. A :class:`Scheme` of your own can be given instead of a name."""


class Quantized(ConstantVictim):
    """Your own float model with its linear layers quantized by torchao.

    The model is copied, then quantized where it stands: move it to its device first. There are no
    gates, and the MACs are constant. int4 weights are unpacked before they are multiplied, so they
    save memory, not MACs.

    Args:
        model: any module (B, *input_shape) -> (B, classes) with ``nn.Linear`` layers, its
            normalisation included.
        input_shape: (C, H, W) of one image.
        scheme: a name in ``SCHEMES``, or a scheme of your own.
        settings: ``data``.

    Raises:
        UsageError: without torchao, if the model has no linear layer that the scheme quantizes, or
            for a scheme that this machine lacks.
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: tuple[int, ...],
        *,
        scheme: str | Scheme = "int8_dynamic",
        name: str = "Quantized",
        **settings: Any,
    ) -> None:
        if isinstance(scheme, str):
            if scheme not in SCHEMES:
                raise unknown_name("quantization scheme", scheme, SCHEMES)
            scheme = SCHEMES[scheme]
        probed = probe(model, input_shape)
        quantized = quantize(model, scheme, input_shape)
        super().__init__(quantized, model, probed, name=name, input_shape=input_shape, **settings)
        self.scheme = scheme
        layers = quantized_linears(quantized)
        self.quantized_macs = sum(call.macs for call in probed.calls if call.name in layers)
        if not self.quantized_macs:
            raise UsageError(
                f"{type(model).__name__} has no nn.Linear that the scheme quantizes: it would "
                "change nothing (a group size must divide the input features)"
            )
        rounded = scheme.activation_bits is not None
        self._traced = straight_through(quantized) if rounded else quantized

    def differentiable(self, images: Tensor) -> Tensor:
        return self._traced(images)

    def bit_operations(self, macs: Tensor) -> Tensor:
        """Executed MACs (B,) -> bit operations (B,): MACs x weight bits x activation bits."""
        bits = self.scheme.weight_bits, self.scheme.activation_bits
        return bit_operations(macs, self.quantized_macs, bits, self.dtype)


def quantize(model: nn.Module, scheme: Scheme, input_shape: tuple[int, ...]) -> nn.Module:
    """A frozen copy of the model in eval mode, quantized, and run once.

    Raises:
        UsageError: if torchao is not installed, or the scheme does not run on this machine.
    """
    torchao = optional("torchao.quantization", quiet="torch.utils._pytree")
    model = copy.deepcopy(model).eval().requires_grad_(False)
    parameter = next(model.parameters())
    blank = parameter.new_zeros(1, *input_shape)
    try:
        torchao.quantize_(model, scheme.config(torchao))
        with torch.no_grad():
            model(blank)
    except (AssertionError, AttributeError, ImportError, RuntimeError, TypeError) as error:
        raise UsageError(
            f"this machine lacks the quantization scheme: it needs {scheme.needs} "
            f"({first_line(error)})"
        ) from error
    return model


def quantized_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers whose weight torchao replaced, by dotted name."""
    linears = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear))
    return {name: layer for name, layer in linears if type(layer.weight) is not nn.Parameter}


def optional(module: str, *, quiet: str) -> Any:
    """Import a module of the ``quant`` extra; warnings, a logger's too, are not repeated.

    Raises:
        MissingPackage: naming the extra, or the package that does not fit this torch.
    """
    package = module.partition(".")[0]
    logger = logging.getLogger(quiet)
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"this quantized victim needs {package} ({error}): {install('quant')}"
        ) from error
    except ImportError as error:
        found = _version(package)
        other = f"pip install '{package}<{found.partition('+')[0]}'" if found else "reinstall it"
        raise MissingPackage(
            f"this quantized victim needs {package}, and {package} {found} does not import beside "
            f"torch {torch.__version__} ({error}): upgrade torch, or {other}"
        ) from error
    finally:
        logger.setLevel(level)


def _version(package: str) -> str:
    """Of an installed package; empty where it tells none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


class _StraightThroughLinear(torch.autograd.Function):
    """Quantized values forward, the gradient of the dequantized linear layer backward."""

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
    """The same quantized model, sharing its layers, with a gradient to the pixels."""
    layers = quantized_linears(model).values()
    twin = copy.deepcopy(model, memo={id(layer): layer for layer in layers})
    return replaced(twin, {layer: _StraightThrough(layer) for layer in layers}).eval()
