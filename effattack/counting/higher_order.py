"""Operators that take functions (``torch.cond``, ``while_loop``, ``map``, ``flex_attention``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from effattack.errors import unknown_operator

FLEX_SWITCH = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"


def kernel_of(op: HigherOrderOperator, name: str) -> Callable[..., Any]:
    """What a higher-order operator runs on plain tensors.

    Raises:
        UnknownOperator: if it runs nothing there.
    """
    if (kernel := op.py_kernels.get(DispatchKey.CompositeExplicitAutograd)) is None:
        raise unknown_operator(name)
    return kernel


@contextmanager
def flex_attention_as_written() -> Iterator[None]:
    """Let ``flex_attention`` run uncompiled: under a dispatch mode torch compiles nothing."""
    module = sys.modules.get("torch.nn.attention.flex_attention")
    before = getattr(module, FLEX_SWITCH, None)
    if before is not None:
        setattr(module, FLEX_SWITCH, True)
    try:
        yield
    finally:
        if before is not None:
            setattr(module, FLEX_SWITCH, before)


def teach_higher_order_operators(mode: type[TorchDispatchMode]) -> None:
    """Hand them to a mode; torch before 2.9 asks for a rule per operator and mode."""
    if hasattr(TorchDispatchMode, "supports_higher_order_operators"):
        return
    import torch._dynamo  # they would import it while MACs are counted, and it runs operators

    for op in torch._ops._higher_order_ops.values():
        if mode not in op.python_key_table:
            op.py_impl(mode)(partial(_handed, op))


def _handed(op: HigherOrderOperator, mode: TorchDispatchMode, *args: Any, **kwargs: Any) -> Any:
    return mode.__torch_dispatch__(op, (), args, kwargs)
