"""A victim in double precision, where rounding does not blur decisions: if there is such a thing.

Its name and family say nothing about that: the weights are asked, and then the operators.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effattack.victim.door import PRECISIONS

Kind = TypeVar("Kind", bound=nn.Module)

WHOLE = (torch.int16, torch.int32, torch.int64, torch.bool)
"""Of indices, counters and masks; narrower integers are quantized numbers."""


def quantized(module: nn.Module) -> bool:
    """Whether any weight is kept in fewer bits than floats have, as libraries do it.

    Narrow integers and float8; subclasses of tensors (torchao, bitsandbytes); weights packed into
    objects of their own (``torch.ao.nn.quantized``).
    """
    return any(map(_is_quantized, _held(module)))


def twin_in_float64(victim: Kind) -> Kind | None:
    """A copy that computes in double precision throughout; None where there is none.

    Quantized weights have none. Nor has a victim that cannot be copied, that does not run in double
    precision, or both of whose paths cast to a narrower type: one input that means nothing shows.
    Where only one of them does, the twin shows that they differ.
    """
    if quantized(victim):
        return None
    try:
        twin = copy.deepcopy(victim).double()
        example = twin.domain.place(twin.domain.example(1), twin.device, torch.float64)
        with torch.no_grad():
            with _Narrowing() as deployed:
                twin(example)
            with _Narrowing() as traced:
                twin.trace(example)
    except Exception:  # whatever a model raises that was never meant for doubles
        return None
    return None if deployed.seen and traced.seen else twin


def _held(module: nn.Module) -> Iterator[object]:
    for part in module.modules():
        yield from chain(part._parameters.values(), part._buffers.values(), vars(part).values())


def _is_quantized(held: object) -> bool:
    if isinstance(held, torch.ScriptObject):
        return True
    if not isinstance(held, Tensor):
        return False
    plain = type(held) in (Tensor, nn.Parameter)
    return not plain or not (held.is_complex() or held.dtype in (*PRECISIONS, *WHOLE))


class _Narrowing(TorchDispatchMode):
    """Notes whether any operator turns doubles into a type that holds less."""

    seen = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if torch.float64 in _dtypes((args, kwargs)):
            self.seen |= any(dtype not in (torch.float64, *WHOLE) for dtype in _dtypes(out))
        return out


def _dtypes(values: Any) -> set[torch.dtype]:
    return {leaf.dtype for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
