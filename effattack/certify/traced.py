"""From modules to steps: what of a network is understood, and what is refused."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from effattack.certify.steps import (
    Convolution,
    Dense,
    Given,
    Largest,
    Rectifier,
    Scale,
    Step,
    Sum,
)
from effattack.errors import NotApplicable

UNDERSTOOD = (
    "convolutions, linear layers, batch norm, ReLU, max and average pooling, residual sums, and "
    "products and sums with constants"
)
NORM_ROUNDINGS = 8
"""Of batch norm from a value to its outcome, whichever way it is computed."""


class At(NamedTuple):
    """The outcome of a step, as a module holds it."""

    number: int
    flat: bool = False
    """As one vector."""


class Network:
    """The steps of modules that share an input, grown module by module.

    Args:
        shape: (C, H, W) of the input.

    Attributes:
        steps: in the order in which they can be taken; the first is the input.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.steps: list[Step] = [Given((), shape)]

    def scaled(self, at: At, factor: Tensor, shift: Tensor, size: Tensor, roundings: int) -> At:
        """A step that scales channels; a factor and a shift, or one per channel."""
        channels = self.steps[at.number].shape[0]
        factor, shift, size = (
            _double(each).flatten().expand(channels) for each in (factor, shift, size)
        )
        step = Scale((at.number,), self.shape(at), factor, shift, size, roundings)
        return self._added(step, at.flat)

    def grow(self, module: nn.Module, at: At) -> At:
        """The steps of a module behind those that are there; where its outcome is.

        Raises:
            NotApplicable: for a module that does something else than is understood, naming it.
        """
        if type(module) in MODULES:
            module = nn.Sequential(module)
        if type(module) in MODULES:  # by itself it is traced into, and no step
            module = nn.Sequential(module)
        try:
            graph = fx.Tracer().trace(module)
        except Exception as error:  # fx raises whatever the module's code does
            raise NotApplicable(
                f"{type(module).__name__} cannot be followed step by step ({error}): linear bounds "
                f"understand {UNDERSTOOD}"
            ) from error
        found: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            arguments = [_looked_up(found, each) for each in node.args]
            settings = {key: _looked_up(found, each) for key, each in node.kwargs.items()}
            if node.op == "placeholder":
                found[node] = at
            elif node.op == "get_attr":
                found[node] = operator.attrgetter(node.target)(module)
            elif node.op == "output":
                return arguments[0]
            else:
                found[node] = self._taken(module, node, arguments, settings)
        raise NotApplicable(f"{type(module).__name__} gives nothing back")

    def _taken(self, module: nn.Module, node: fx.Node, given: list[Any], settings: Any) -> Any:
        """The outcome of one node of a graph."""
        if node.op == "call_module":
            part = module.get_submodule(node.target)
            act, what = MODULES.get(type(part)), type(part).__name__
            given = [part, *given]
        else:
            act = FUNCTIONS.get(node.target)
            what = getattr(node.target, "__name__", str(node.target))
        if node.target in CONSTANT and not any(isinstance(each, At) for each in given):
            return node.target(*given)
        found = None if act is None else act(self, *given, **settings)
        if found is None:
            raise NotApplicable(
                f"linear bounds do not understand {what} as {type(module).__name__} uses it: they "
                f"understand {UNDERSTOOD}"
            )
        return found

    def _added(self, step: Step, flat: bool = False) -> At:
        self.steps.append(step)
        return At(len(self.steps) - 1, flat)

    def shape(self, at: At) -> tuple[int, int, int]:
        return self.steps[at.number].shape

    def outcome(self, at: At, act: Callable[[Tensor], Tensor]) -> tuple[int, int, int]:
        """The shape of what a function makes of a map."""
        with torch.no_grad():
            channels, height, width = act(torch.zeros(1, *self.shape(at)).double()).shape[1:]
        return channels, height, width


def _double(value: Tensor | float) -> Tensor:
    return torch.as_tensor(value).detach().double().cpu()


def _looked_up(found: dict[fx.Node, Any], argument: Any) -> Any:
    return fx.node.map_arg(argument, found.__getitem__)


def _convolution(network: Network, part: nn.Conv2d, at: At) -> At | None:
    if isinstance(part.padding, str) or part.padding_mode != "zeros" or part.dilation != (1, 1):
        return None
    weight = _double(part.weight)
    bias = weight.new_zeros(len(weight)) if part.bias is None else _double(part.bias)
    settings = (weight, bias, part.stride, part.padding, part.groups)
    shape = network.outcome(
        at, lambda one: F.conv2d(one, weight, bias, *settings[2:4], 1, part.groups)
    )
    return network._added(Convolution((at.number,), shape, *settings))


def _dense(network: Network, part: nn.Linear, at: At) -> At | None:
    under = network.shape(at)
    weight = _double(part.weight)
    if weight.shape[1] != under[0] * under[1] * under[2]:
        return None
    bias = weight.new_zeros(len(weight)) if part.bias is None else _double(part.bias)
    step = Dense((at.number,), (len(weight), 1, 1), weight, bias, under)
    return network._added(step, flat=True)


def _norm(network: Network, part: nn.BatchNorm2d, at: At) -> At | None:
    if part.running_mean is None or (at.flat and network.shape(at)[1:] != (1, 1)):
        return None
    mean, variance = _double(part.running_mean), _double(part.running_var)
    weight = torch.ones_like(mean) if part.weight is None else _double(part.weight)
    bias = torch.zeros_like(mean) if part.bias is None else _double(part.bias)
    factor = weight / (variance + part.eps).sqrt()
    size = bias.abs() + (factor * mean).abs()
    return network.scaled(at, factor, bias - factor * mean, size, NORM_ROUNDINGS)


def _rectified(network: Network, at: At, inplace: bool = False) -> At:
    return network._added(Rectifier((at.number,), network.shape(at)), at.flat)


def _added(network: Network, one: Any, other: Any) -> At | None:
    if isinstance(one, At) and isinstance(other, At):
        if network.shape(one) != network.shape(other):
            return None
        return network._added(Sum((one.number, other.number), network.shape(one)), one.flat)
    at, shift = (one, other) if isinstance(one, At) else (other, one)
    shift = _constant(network, at, shift)
    return shift and network.scaled(at, torch.ones(1), *shift, 1)


def _times(network: Network, one: Any, other: Any) -> At | None:
    if isinstance(one, At) and isinstance(other, At):
        return None
    at, factor = (one, other) if isinstance(one, At) else (other, one)
    found = _constant(network, at, factor)
    return found and network.scaled(at, found[0], torch.zeros(1), torch.zeros(1), 1)


def _constant(network: Network, at: At, value: Any) -> tuple[Tensor, Tensor] | None:
    """A constant, one or per channel, and its absolute value."""
    value = _double(value)
    channels = network.shape(at)[0]
    if value.numel() == 1 or value.shape in ((channels, 1, 1), (1, channels, 1, 1)):
        return value.flatten(), value.flatten().abs()
    return None


def _max_pool(
    network: Network,
    at: At,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> At | None:
    if _pair(padding) != (0, 0) or _pair(dilation) != (1, 1) or ceil_mode or return_indices:
        return None
    kernel = _pair(kernel_size)
    stride = _pair(stride) if stride else kernel
    shape = network.outcome(at, lambda one: F.max_pool2d(one, kernel, stride))
    return network._added(Largest((at.number,), shape, kernel, stride))


def _average_pool(
    network: Network,
    at: At,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> At | None:
    if _pair(padding) != (0, 0) or ceil_mode or divisor_override is not None:
        return None
    kernel = _pair(kernel_size)
    stride = _pair(stride) if stride else kernel
    shape = network.outcome(at, lambda one: F.avg_pool2d(one, kernel, stride))
    weight = torch.full((shape[0], 1, *kernel), 1 / (kernel[0] * kernel[1])).double()
    bias = weight.new_zeros(shape[0])
    return network._added(Convolution((at.number,), shape, weight, bias, stride, (0, 0), shape[0]))


def _pooled_to(network: Network, at: At, output_size: Any) -> At | None:
    """Average pooling to a given size that divides the map."""
    sizes = network.shape(at)[1:]
    outputs = [
        size if wanted is None else wanted
        for size, wanted in zip(sizes, _pair(output_size), strict=True)
    ]
    if any(size % wanted for size, wanted in zip(sizes, outputs, strict=True)):
        return None
    kernel = tuple(size // wanted for size, wanted in zip(sizes, outputs, strict=True))
    return _average_pool(network, at, kernel)


def _flattened(network: Network, at: At, start_dim: int = 0, end_dim: int = -1) -> At | None:
    return at._replace(flat=True) if (start_dim, end_dim) in ((1, -1), (1, 3)) else None


def _as_it_is(network: Network, at: At, *_: Any, **__: Any) -> At:
    return at


def _pair(value: Any) -> tuple[Any, Any]:
    return (value, value) if value is None or isinstance(value, int) else tuple(value)


CONSTANT = {operator.add, operator.sub, operator.mul, operator.truediv, operator.neg}
"""What may be done with constants."""
FUNCTIONS: dict[Any, Callable[..., At | None]] = {
    **dict.fromkeys((torch.relu, F.relu, "relu"), _rectified),
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add"), _added),
    **dict.fromkeys((operator.mul, torch.mul, "mul"), _times),
    **dict.fromkeys((torch.flatten, "flatten"), _flattened),
    **dict.fromkeys((F.dropout, "clone", "contiguous"), _as_it_is),
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.avg_pool2d: _average_pool,
    F.adaptive_avg_pool2d: _pooled_to,
}
"""Functions, and methods by name."""
MODULES: dict[type[nn.Module], Callable[..., At | None]] = {
    nn.Conv2d: _convolution,
    nn.Linear: _dense,
    nn.BatchNorm2d: _norm,
    nn.BatchNorm1d: _norm,
    nn.ReLU: lambda network, part, at: _rectified(network, at),
    nn.MaxPool2d: lambda network, part, at: _max_pool(
        network,
        at,
        part.kernel_size,
        part.stride,
        part.padding,
        part.dilation,
        part.ceil_mode,
        part.return_indices,
    ),
    nn.AvgPool2d: lambda network, part, at: _average_pool(
        network,
        at,
        part.kernel_size,
        part.stride,
        part.padding,
        part.ceil_mode,
        part.count_include_pad,
        part.divisor_override,
    ),
    nn.AdaptiveAvgPool2d: lambda network, part, at: _pooled_to(network, at, part.output_size),
    nn.Flatten: lambda network, part, at: _flattened(network, at, part.start_dim, part.end_dim),
    **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), lambda network, part, at: at),
}
"""Modules, in eval mode."""
