"""Executed multiply-accumulates (MACs), counted by dispatch.

Every operator that runs is looked up in one of two tables: ``COSTS`` (a formula for its MACs) or
``FREE`` (moves, compares, normalises or adds, but multiplies no matrices). Pointwise operators and
views are free by their tag, composite operators count as their parts, higher-order operators as
the branch that ran, and ``op_`` in place counts as ``op``. Any other operator raises: a counter
that guesses silently is how fused attention and int8 layers came to count as zero in
``torch.utils.flop_counter``. What dispatch does not show (other threads, values that come back
from the host) is refused by :mod:`.outside` and :mod:`.origins`.

The papers on efficient models print the same quantity as "GFLOPs" (1 MAC = 1 "FLOP").
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from effattack.counting.costs import COSTS, Formula, stored
from effattack.counting.free import FREE, elements, is_elementwise, is_free
from effattack.counting.higher_order import (
    flex_attention_as_written,
    kernel_of,
    teach_higher_order_operators,
)
from effattack.counting.outside import alone, is_counting
from effattack.errors import UsageError, unknown_operator

Instruction = tuple[FrameType, int]
"""A frame, and where in its code it stands."""
WRAPPERS = (os.path.join("_dynamo", "eval_frame.py"), os.path.join("torch", "_compile.py"))
"""Files of torch whose frames stand between an operator's caller and a dispatch mode."""


def register(op: Any, formula: Formula | None) -> None:
    """Give the counter the cost of an operator.

    Args:
        op: ``torch.ops.library.name``, one of its overloads, or the string ``"library.name"``.
        formula: ``formula(*args, out=result, **kwargs) -> int``, called with the operator's own
            arguments and its result; ``None`` declares the operator free.

    Raises:
        UsageError: while MACs are counted.
    """
    name = _name(op)
    if is_counting():
        raise UsageError(
            f"register({name!r}, ...) is called while MACs are counted, so that equal inputs would "
            "count differently: call it once, where the victim's module is imported"
        )
    FREE.discard(name)
    COSTS.pop(name, None)
    if formula is None:
        FREE.add(name)
    else:
        COSTS[name] = formula


def _bytes(value: Any) -> int:
    """Of all tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        return stored(value) * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


@cache
def _name(op: Any) -> str:
    """``aten.mm`` for ``torch.ops.aten.mm``, its overloads, and ``"aten.mm"``; no trailing "_"."""
    if isinstance(op, HigherOrderOperator):
        return op.name()
    if not isinstance(op, str):
        op = getattr(op, "overloadpacket", op)._qualified_op_name.replace("::", ".")
    return op if op.endswith("__") else op.removesuffix("_")


class Witness(Protocol):
    """Who is shown every operator that runs under a counter."""

    def using(self, name: str, op: Any, args: Any, kwargs: dict[str, Any]) -> None: ...

    def made(self, op: Any, args: Any, out: Any) -> None: ...

    def declared(self) -> None: ...


class MacsCounter(TorchDispatchMode):
    """Counts the MACs of what runs inside the ``with`` block.

    Args:
        root: module whose submodules the MACs are also attributed to, for messages.
        witness: is shown every operator.

    Attributes:
        total: MACs so far.
        elementwise: elements that free operators computed by multiplying element by element, or by
            fixed weights (activations, normalisation, pooling, interpolation).
        bytes: of all operands and results of the operators that cost MACs, each counted once per
            call. Weights packed into an opaque object are not seen.
        outside: seconds in each block declared by :func:`effattack.outside`, by its name.
        tallies: work that is no MAC, as :func:`effattack.tally` told it, by its name.
        by_operator: MACs per operator.
        by_module: MACs per submodule of ``root`` (a parent includes its children).

    Raises:
        UnknownOperator: at the first operator that is in neither table.
        UnseenWork: where work is handed to another thread or process.
    """

    supports_higher_order_operators = True

    def __init__(self, root: nn.Module | None = None, witness: Witness | None = None) -> None:
        super().__init__()
        self.total = 0
        self.elementwise = 0
        self.bytes = 0
        self.outside: dict[str, float] = {}
        self.tallies: dict[str, float] = {}
        self.by_operator: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self._tracker = ModuleTracker() if root is not None else None
        self._witness = witness
        self._product: tuple[Tensor, Instruction] | None = None
        self._entered = ExitStack()

    def __enter__(self) -> MacsCounter:
        with ExitStack() as stack:
            if self._tracker is not None:
                stack.enter_context(self._tracker)
            stack.enter_context(flex_attention_as_written())
            stack.enter_context(alone(self))
            teach_higher_order_operators(MacsCounter)
            super().__enter__()
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        self._product = None
        self._entered.__exit__(*exc)

    def declared(self, name: str, seconds: float) -> None:
        """Told by :func:`effattack.outside` when a declared block begins, and when it ends."""
        self.outside[name] = self.outside.get(name, 0.0) + seconds
        if self._witness is not None:
            self._witness.declared()

    def tallied(self, name: str, n: float) -> None:
        """Told by :func:`effattack.tally` where the work is done."""
        self.tallies[name] = self.tallies.get(name, 0) + n

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        formula = COSTS.get(name)
        run = func
        if isinstance(func, HigherOrderOperator):
            run = kernel_of(func, name)
            if formula is None:
                return self._branches(func, run, args, kwargs)
        elif formula is None and not is_free(func, name):
            if (out := self._by_parts(func, args, kwargs)) is not NotImplemented:
                return out
            raise unknown_operator(name)
        if self._witness is not None:
            self._witness.using(name, func, args, kwargs)
        out = run(*args, **kwargs)
        if self._witness is not None:
            self._witness.made(func, args, out)
        if formula is not None:
            self._add(name, int(formula(*args, **{**kwargs, "out": out})))
            self.bytes += _bytes((args, out))
        elif is_elementwise(name):
            self.elementwise += elements(out)
        elif name == "aten.sum" and (summed := self._summed_at_once(args[0], _caller())):
            self._add(name, summed)
        self._product = (out, _caller()) if name == "aten.mul" else None
        return out

    def _summed_at_once(self, summed: Tensor, caller: Instruction) -> int:
        """MACs of a product that is multiplied and summed inside one call, as ``vecdot`` is.

        Torch shows it as two operators, but Python stood at one and the same instruction.
        """
        if self._product is None:
            return 0
        product, multiplied_by = self._product
        if product is not summed or multiplied_by != caller:
            return 0
        self.elementwise -= elements(product)
        return elements(product) * (4 if product.is_complex() else 1)

    def _branches(
        self, op: HigherOrderOperator, kernel: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Run a higher-order operator, counting those of its functions that it calls."""

        def counted(argument: Any) -> Any:
            if not callable(argument) or isinstance(argument, Tensor):
                return argument

            @wraps(argument)
            def call(*inner: Any) -> Any:
                with self._again():
                    return argument(*inner)

            return call

        out = kernel(*map(counted, args), **{k: counted(v) for k, v in kwargs.items()})
        if self._witness is not None:
            self._witness.using(_name(op), op, args, kwargs)
            self._witness.made(op, args, out)
        return out

    def _by_parts(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a composite operator (inference mode hands them over whole), counting its parts."""
        with self._again():
            return func.decompose(*args, **kwargs)

    @contextmanager
    def _again(self) -> Iterator[None]:
        """Count what runs inside an operator that the counter was handed whole."""
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)

    def _add(self, name: str, macs: int) -> None:
        self.total += macs
        self.by_operator[name] += macs
        if self._tracker is not None:
            for module in self._tracker.parents:
                self.by_module[module] += macs


def _caller() -> Instruction:
    """Where Python called the operator that is being dispatched."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename.endswith(WRAPPERS) and frame.f_back is not None:
        frame = frame.f_back
    return frame, frame.f_lasti


def count_macs(function: Callable[..., Any], *args: Any) -> int:
    """MACs executed by one call of ``function``, run without gradients.

    The fused kernels of eval mode take part, because autograd is off: what is counted is what a
    deployment runs.
    """
    with torch.no_grad(), MacsCounter() as counter:
        function(*args)
    return counter.total


def linear_macs(tokens: int, modules: Iterable[nn.Linear]) -> int:
    """MACs of linear layers over ``tokens`` rows each."""
    return sum(tokens * m.in_features * m.out_features for m in modules)
