"""Where the tensors and numbers of a run come from: what nobody saw being made is unseen work.

A tensor that no counted operator made came from the host: from numpy, a list, DLPack, another
thread, an operator outside dispatch, or memory that somebody else wrote to. So did a Python number
that is multiplied. Such values are free where they are constants, and work that the counter cannot
see where they depend on the input. Which it is shows on a second, neighbouring input that takes
the same path: constants are equal there. Whole numbers are free, as sizes and places are, unless
a tensor is filled with them, and so are integer and Boolean tensors that only say where to read or
write.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.storage import UntypedStorage

from effattack.counting.macs import MacsCounter
from effattack.counting.sight import Known, Sight, digest, leaves, storages, tensors
from effattack.domains import Arrays, Batch, Domain
from effattack.domains.base import tensors as tensors_of
from effattack.errors import UnseenWork

STEPS = (32 / 255, 1 / 255, 1 / 4080, 1 / 65280)
"""How far the second input lies from the first, as a share of the range, per pixel; smaller where
it takes another path."""
PLACES = {
    f"aten.{name}"
    for name in """
    embedding _embedding_bag _embedding_bag_forward_only gather index index_add index_copy
    index_fill index_put _index_put_impl index_reduce index_select masked_fill masked_scatter
    masked_select put repeat_interleave scatter scatter_add scatter_reduce take _unsafe_index
    where
    """.split()  # noqa: SIM905
}
"""Operators whose integer and Boolean operands say where to read or write."""
FILLING = {
    f"aten.{name}"
    for name in """
    arange constant_pad_nd fill full full_like index_fill linspace logspace masked_fill new_full
    range scalar_tensor scatter
    """.split()  # noqa: SIM905
}
"""Operators that turn a number into elements, so that whole numbers are values there."""
OURS = (os.path.dirname(torch.__file__), os.path.dirname(__file__))


class Entry(NamedTuple):
    """A value that came from outside."""

    step: int
    """Which operator it was given to."""
    place: tuple[int, int]
    """Which of its operands it was, and which part of that."""
    value: int | str
    """Digest of a tensor, or a number as text."""
    what: str
    where: tuple[str, int]
    """File and line that called the operator."""
    storage: UntypedStorage | None
    lasting: bool
    """Whether the storage was there before the run, which has not written to it so far."""


class Origins(Sight):
    """A run, and for every tensor which of the values that came from outside went into it."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        self.path: list[tuple[str, object]] = []
        self.entries: list[Entry] = []
        self._came = 0
        super().__init__(given, Known())

    def using(self, name: str, op: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Record an operator and its operands; bits of ``_came`` are the entries behind them."""
        if name in FILLING:
            fills = _fills(op)
            args = [
                float(v) if k in fills and isinstance(v, int) else v for k, v in enumerate(args)
            ]
        operands = list(leaves((args, tuple(kwargs.values()))))
        shapes = tuple(_shape(value) for value in operands if isinstance(value, Tensor))
        self.path.append((name, shapes))
        self._came = 0
        for place, value in enumerate(operands):
            if isinstance(value, Tensor | UntypedStorage):
                behind = self._behind(value, place)
                if not _says_where(name, value):
                    self._came |= behind
            elif isinstance(value, float | complex):
                self._came |= self._enter((place, 0), repr(value), f"the number {value:.4g}")

    def made(self, op: Any, args: Any, out: Any) -> None:
        if self.path and self.path[-1][0] in FILLING:  # a number that gave another size was one
            name, shapes = self.path[-1]
            self.path[-1] = (name, (shapes, tuple(map(_shape, tensors(out)))))
        views = getattr(op, "is_view", False)
        for tensor in tensors((out, _written(op, args))):  # out= is the result, too
            for storage in storages(tensor):
                run, behind, content = storage.__dict__.get("_effattack_origin", (0, 0, 0))
                same = run == self.run
                storage.__dict__["_effattack_origin"] = (
                    self.run,
                    self._came | (behind if same else 0),
                    content if same and views else digest(storage),
                )

    def _mark(self, tensor: Tensor) -> None:
        self.made(None, (), tensor)

    def _behind(self, tensor: Tensor | UntypedStorage, place: int) -> int:
        """Which entries went into an operand, which may be one itself."""
        behind = 0
        for part, storage in enumerate(storages(tensor)):
            run, entries, content = storage.__dict__.get("_effattack_origin", (0, 0, None))
            now = digest(storage)
            if run != self.run or content != now:
                made = run == self.run
                what = "was written to from outside" if made else "no operator made"
                entry = self._enter((place, part), now, f"a tensor that {what}", storage)
                entries = entry | (entries if made else 0)
                storage.__dict__["_effattack_origin"] = (self.run, entries, now)
            behind |= entries
        return behind

    def _enter(
        self,
        place: tuple[int, int],
        value: int | str,
        what: str,
        storage: UntypedStorage | None = None,
    ) -> int:
        """Record a value; its bit."""
        if self._open:
            return 0
        step, (operator, _) = len(self.path) - 1, self.path[-1]
        known = {} if storage is None else storage.__dict__
        lasting = "_effattack_met" in known and known.get("_effattack_origin", (0,))[0] != self.run
        what = f"{what} ({operator})"
        self.entries.append(Entry(step, place, value, what, _where(), storage, lasting))
        return 1 << (len(self.entries) - 1)

    def came_out(self, result: Any) -> int:
        """Which entries went into the result: one bit each."""
        self.using("the logits", None, (result,), {})
        return self._came


def examine(
    name: str, function: Callable[[Batch], Any], given: Batch, known: Known, domain: Domain
) -> None:
    """Run a function on an input and on a neighbour, and refuse what depends on it unseen.

    Args:
        name: of the victim, for the message.
        function: one input -> tensors.
        given: the input.
        known: extended by what is equal for both inputs.
        domain: of the input: where it has no neighbours, half of it is drawn anew.

    Raises:
        UnseenWork: naming where the value came in, and the remedy.
    """
    with torch.no_grad(), MacsCounter(witness=Sight(tensors_of(given), known)):
        function(given)  # meets what was there before
    first, behind = _observed(function, given)
    steady: list[Entry] = []
    for step in STEPS:
        other, behind_other = _observed(function, _neighbour(domain, given, step))
        here, there = _by_place(first), _by_place(other)
        shared = min(_shared(first, other, there), _shared(other, first, here))
        equal, unequal = _compared(first, there, shared)
        _, only_there = _compared(other, here, shared)  # first may find memory as it was left
        for entries, decisive in ((unequal, behind), (only_there, behind_other)):
            for number, entry in entries:
                if decisive >> number & 1:
                    raise UnseenWork(_refusal(name, entry))
        steady += equal
        if shared == len(first.path):
            break
    for entry in steady:
        if entry.storage is not None and isinstance(entry.value, int):
            known.constants.add(entry.value)
            entry.storage.__dict__["_effattack_constant"] = True
    known.longest = max(known.longest, len(first.path))


def _observed(function: Callable[[Batch], Any], given: Batch) -> tuple[Origins, int]:
    origins = Origins(tensors_of(given))
    with torch.no_grad(), MacsCounter(witness=origins):
        result = function(given)
    return origins, origins.came_out(result)


def _neighbour(domain: Domain, given: Batch, step: float) -> Batch:
    if not isinstance(domain, Arrays):
        return domain.disturbed(given, torch.Generator().manual_seed(STEPS.index(step)))
    signs = (
        torch.rand(given.shape, generator=torch.Generator().manual_seed(0))
        .sub(0.5)
        .sign()
        .to(given)
    )
    reach = step * (domain.high - domain.low)
    return (given + reach * signs).clamp(domain.low, domain.high)


def _by_place(run: Origins) -> dict[Any, Entry]:
    return {(entry.step, entry.place): entry for entry in run.entries}


def _compared(
    run: Origins, against: dict[Any, Entry], shared: int
) -> tuple[list[Entry], list[tuple[int, Entry]]]:
    """Of the operators that two runs share: the entries with an equal, and the others, numbered."""
    equal, unequal = [], []
    for number, entry in enumerate(run.entries):
        if entry.step < shared:
            theirs = against.get((entry.step, entry.place))
            if theirs is not None and theirs.value == entry.value:
                equal.append(entry)
            else:
                unequal.append((number, entry))
    return equal, unequal


def _shared(first: Origins, other: Origins, there: dict[Any, Entry]) -> int:
    """How many operators both runs share, until one is another or uses other weights."""
    pairs = enumerate(zip(first.path, other.path, strict=False))
    shared = next((k for k, (a, b) in pairs if a != b), min(len(first.path), len(other.path)))
    for entry in first.entries:
        theirs = there.get((entry.step, entry.place))
        if entry.lasting and (theirs is None or theirs.storage is not entry.storage):
            return min(shared, entry.step)
    return shared


def _refusal(name: str, entry: Entry) -> str:
    file, line = entry.where
    source = linecache.getline(file, line).strip()
    return (
        f"{name}: {os.path.basename(file)}, line {line} ({source}): forward is given {entry.what} "
        "that depends on the input and decides the logits, and the MACs counter did not see what "
        "computed it: use torch operators in this thread, without numpy(), tolist() or item() in "
        'between, or declare the work by `with effattack.outside("its name"):`'
    )


def _where() -> tuple[str, int]:
    """The nearest caller that is neither torch nor this package's measuring."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(OURS) and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _says_where(name: str, value: Tensor | UntypedStorage) -> bool:
    """Whether an operand only says where its operator reads or writes."""
    if name not in PLACES or isinstance(value, UntypedStorage):
        return False
    if name == "aten.where":  # whose whole numbers are what it chooses from
        return value.dtype is torch.bool
    return not (value.is_floating_point() or value.is_complex())


def _shape(tensor: Tensor) -> object:
    return "nested" if tensor.is_nested else tuple(tensor.shape)


def _written(op: Any, args: Any) -> list[Any]:
    """The operands that an operator writes to."""
    return [args[k] for k in _writes(op) if k < len(args)]


@cache
def _fills(op: Any) -> list[int]:
    """The operands that are numbers, and no sizes."""
    return [k for k, a in enumerate(op._schema.arguments) if str(a.type) == "number"]


@cache
def _writes(op: Any) -> list[int]:
    schema = getattr(op, "_schema", None)
    return [] if schema is None else [k for k, a in enumerate(schema.arguments) if a.is_write]
