"""Which tensors of a run somebody saw being made.

Results of counted operators are marked, and so is the input. A tensor without a mark is a stranger:
a weight, a constant, or the result of work that the counter did not see. Which of them it is,
:mod:`.origins` finds out, and marks what has shown to be constant. The marks stand
on the memory of tensors, so that views and detached tensors share them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.storage import UntypedStorage
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from effattack.counting.costs import COMPRESSED

_runs = count(1)


@dataclass
class Known:
    """What examinations of one function have shown."""

    constants: set[int] = field(default_factory=set)
    """Digests of tensors that were equal on two inputs."""
    longest: int = 0
    """Operators on the longest path that was examined."""


class Sight:
    """A run under a counter, as :class:`~effattack.counting.macs.Witness`: what came from outside.

    Args:
        given: what the input is made of.
        known: what earlier runs of the same function have shown.

    Attributes:
        strangers: whether a tensor was used that nobody made in sight and that is no constant.
        steps: how many operators ran.
    """

    def __init__(self, given: Iterable[Tensor], known: Known) -> None:
        self.run = next(_runs)
        self.known = known
        self.strangers = False
        self.steps = 0
        self._open = False
        for tensor in given:
            self._mark(tensor)

    def declared(self) -> None:
        """A declared block has begun: what enters from now on may come out of it."""
        self._open = True

    def using(self, name: str, op: Any, args: Any, kwargs: dict[str, Any]) -> None:
        self.steps += 1
        for value in leaves((args, tuple(kwargs.values()))):
            for storage in storages(value):
                known = storage.__dict__
                if known.get("_effattack_run") != self.run and not self._open:
                    self.strangers |= self._is_strange(storage)
                    known["_effattack_met"] = True

    def made(self, op: Any, args: Any, out: Any) -> None:
        for tensor in tensors(out):
            self._mark(tensor)

    def _mark(self, tensor: Tensor) -> None:
        for storage in storages(tensor):
            storage.__dict__["_effattack_run"] = self.run

    def _is_strange(self, storage: UntypedStorage) -> bool:
        if "_effattack_constant" in storage.__dict__:
            return False
        return digest(storage) not in self.known.constants

    @property
    def is_news(self) -> bool:
        """Whether the run went where no examination has been."""
        return self.strangers or self.steps > self.known.longest


def storages(tensor: Any) -> Iterator[UntypedStorage]:
    """The memory that a tensor stands in: one block, or those of its parts; bare memory as it is.

    ``set_``, and with it pickle and ``torch.load``, is given bare memory. Other values have none.
    """
    if isinstance(tensor, UntypedStorage):
        yield tensor
    elif not isinstance(tensor, Tensor):
        return
    elif is_traceable_wrapper_subclass(tensor):
        for part in tensor.__tensor_flatten__()[0]:
            yield from storages(getattr(tensor, part))
    elif tensor.layout is torch.sparse_coo:
        yield from (tensor._indices().untyped_storage(), tensor._values().untyped_storage())
    elif tensor.layout in COMPRESSED:
        yield tensor.values().untyped_storage()
    elif tensor.layout is torch.strided:
        yield tensor.untyped_storage()


def digest(storage: UntypedStorage) -> int:
    """A checksum of the contents; small ones by the stronger one."""
    if not storage.nbytes() or storage.device.type == "meta":
        return storage.nbytes()
    empty = torch.empty(0, dtype=torch.uint8, device=storage.device)
    content: Any = empty.set_(storage).cpu().numpy()
    return zlib.crc32(content) if len(content) < 1 << 16 else zlib.adler32(content)


def leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(value)
        elif isinstance(value, dict):
            yield from leaves(value.values())
        else:
            yield value


def tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in leaves((values,)) if isinstance(value, Tensor))
