"""Modules of linear layers and ReLUs, read into an encoding."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from effattack.certify.exact.encoding import Array, Encoding, Form
from effattack.errors import NotApplicable, first_line

SAME = (nn.Flatten, nn.Identity, nn.Dropout)
SUMS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
RELUS: tuple[Callable[..., Any], ...] = (torch.relu, F.relu, torch.relu_)


class Reader:
    """Reads modules, each of which is traced once."""

    def __init__(self) -> None:
        self._graphs: dict[nn.Module, fx.GraphModule] = {}

    def read(self, module: nn.Module, form: Form, encoding: Encoding) -> Form:
        """What a module makes of features, all ReLUs of it added to the encoding.

        Raises:
            NotApplicable: for anything but linear layers, ReLUs, flattening and sums.
        """
        if module not in self._graphs:
            self._graphs[module] = _traced(module)
        found = _OnForms(self._graphs[module], encoding).run(form)
        if not isinstance(found, Form):
            raise NotApplicable(f"{type(module).__name__} gives no one tensor: no exact worst case")
        return found


def _traced(module: nn.Module) -> fx.GraphModule:
    try:
        return fx.symbolic_trace(nn.Sequential(module))
    except Exception as error:  # torch's own, and whatever the module does with a proxy
        raise NotApplicable(
            f"{type(module).__name__} cannot be read ({first_line(error)}): an exact worst case "
            "needs linear layers, ReLUs and sums, without decisions between them"
        ) from error


class _OnForms(fx.Interpreter):
    """Runs a graph on forms in place of tensors."""

    def __init__(self, graph: fx.GraphModule, encoding: Encoding) -> None:
        super().__init__(graph, garbage_collect_values=False)
        self.encoding = encoding

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Form:
        module = self.fetch_attr(target)
        if isinstance(module, nn.Linear):
            weight = as_array(module.weight)
            bias = 0.0 if module.bias is None else as_array(module.bias)
            return args[0].linear(weight, bias)
        if isinstance(module, nn.ReLU):
            return self.encoding.relu(args[0])
        if isinstance(module, SAME):
            return args[0]
        raise _unreadable(type(module).__name__)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Form:
        if target in SUMS and all(isinstance(term, Form) for term in args):
            return self.encoding.total(*args)
        if target in RELUS:
            return self.encoding.relu(args[0])
        if target is torch.flatten:
            return args[0]
        raise _unreadable(getattr(target, "__name__", str(target)))

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Form:
        if target == "relu":
            return self.encoding.relu(args[0])
        if target in ("flatten", "clone"):
            return args[0]
        raise _unreadable(target)


def as_array(values: Tensor) -> Array:
    """In float64, on the CPU."""
    return values.detach().cpu().double().numpy()


def _unreadable(what: str) -> NotApplicable:
    return NotApplicable(
        f"{what} has no exact worst case here: the exam's victims are made of Linear, ReLU, "
        "Flatten and sums; linear bounds cover more"
    )
