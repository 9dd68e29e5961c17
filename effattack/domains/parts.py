"""Inputs of several parts, by name: an image with a question."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.domains.base import Batch, Domain
from effattack.errors import UsageError


@dataclass(frozen=True, eq=False)
class PartsBatch:
    """Some inputs of several parts.

    ``batch["image"]`` is the batch of one part; any other index gives rows, of every part.
    """

    parts: Mapping[str, Batch]

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            return self.parts[index]
        return self._each(lambda part: part[index])

    def __iter__(self) -> Iterator[PartsBatch]:
        raise TypeError("a batch of parts has no rows without a batch: use split(1)")

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return next(iter(self.parts.values())).device

    def to(self, *where: Any, **settings: Any) -> PartsBatch:
        """Every part, as ``Tensor.to`` has it."""
        return self._each(lambda part: part.to(*where, **settings))

    def clone(self) -> PartsBatch:
        """Every part copied."""
        return self._each(lambda part: part.clone())

    def detach(self) -> PartsBatch:
        """Every part without its graph."""
        return self._each(lambda part: part.detach())

    def split(self, size: int) -> list[PartsBatch]:
        """Batches of ``size`` inputs, the last one of what is left."""
        return [self[first : first + size] for first in range(0, len(self), size)]

    def replaced(self, **parts: Batch) -> PartsBatch:
        """The same with some parts changed."""
        return PartsBatch({**self.parts, **parts})

    def _each(self, change: Callable[[Any], Any]) -> PartsBatch:
        return PartsBatch({name: change(part) for name, part in self.parts.items()})


class Parts(Domain):
    """Inputs of several parts, each of a domain of its own.

    Args:
        parts: name -> domain, such as ``image=Pixels((3, 224, 224)), question=Tokens(...)``.

    Raises:
        UsageError: without any, or for a part that is no domain.
    """

    kind, noun, nouns = "parts", "input", "inputs"

    def __init__(self, **parts: Domain) -> None:
        strange = [name for name, part in parts.items() if not isinstance(part, Domain)]
        if strange or not parts:
            raise UsageError(f"Parts: {', '.join(strange) or 'no part'}: give name=domain of each")
        self.parts = parts
        self.smooth = any(part.smooth for part in parts.values())
        self.shape = ()

    def describe(self) -> dict[str, Any]:
        parts = {name: part.describe() for name, part in self.parts.items()}
        return {**super().describe(), "parts": parts}

    def check(self, inputs: PartsBatch) -> None:
        if not isinstance(inputs, PartsBatch):
            raise UsageError(
                f"inputs of several parts must be a PartsBatch, not {type(inputs).__name__}: use "
                f"PartsBatch({{{', '.join(f'{name!r}: ...' for name in self.parts)}}})"
            )
        if set(inputs.parts) != set(self.parts):
            raise UsageError(
                f"inputs have parts {', '.join(inputs.parts)}, the victim takes "
                f"{', '.join(self.parts)}: give these"
            )
        for name, part in self.parts.items():
            try:
                part.check(inputs[name])
            except UsageError as error:
                raise UsageError(f"part {name}: {error}") from error
        counts = {name: len(inputs[name]) for name in self.parts}
        if len(set(counts.values())) > 1:
            raise UsageError(f"parts of different lengths, {counts}: they must pair up")

    def fits(self, inputs: PartsBatch) -> bool:
        return (
            isinstance(inputs, PartsBatch)
            and set(inputs.parts) == set(self.parts)
            and all(part.fits(inputs[name]) for name, part in self.parts.items())
        )

    def place(
        self, inputs: PartsBatch, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> PartsBatch:
        return self._each(lambda part, batch: part.place(batch, device, dtype), inputs)

    def snap(self, inputs: PartsBatch) -> PartsBatch:
        return self._each(lambda part, batch: part.snap(batch), inputs)

    def stretched(self, inputs: PartsBatch) -> PartsBatch:
        return self._each(lambda part, batch: part.stretched(batch), inputs)

    def example(self, count: int) -> PartsBatch:
        return PartsBatch({name: part.example(count) for name, part in self.parts.items()})

    def pack(self, inputs: PartsBatch) -> list[bytes]:
        """Before the parts their lengths, as 64-bit integers."""
        columns = [part.pack(inputs[name]) for name, part in self.parts.items()]
        return [
            struct.pack(f"<{len(row)}q", *map(len, row)) + b"".join(row)
            for row in zip(*columns, strict=True)
        ]

    def unpack(self, rows: Sequence[bytes], like: PartsBatch) -> PartsBatch:
        columns: list[list[bytes]] = [[] for _ in self.parts]
        head = 8 * len(columns)
        for row in rows:
            sizes = struct.unpack(f"<{len(columns)}q", row[:head])
            ends = list(accumulate(sizes, initial=head))
            for column, first, last in zip(columns, ends[:-1], ends[1:], strict=True):
                column.append(row[first:last])
        return PartsBatch(
            {
                name: part.unpack(column, like[name])
                for column, (name, part) in zip(columns, self.parts.items(), strict=True)
            }
        )

    def distances(self, inputs: PartsBatch, clean: PartsBatch) -> dict[str, Tensor]:
        """The columns of every part; of two with the same one, the norm of both together."""
        found: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            for column, values in part.distances(inputs[name], clean[name]).items():
                together = {"linf": torch.maximum, "l2": torch.hypot}.get(column, torch.add)
                found[column] = together(found[column], values) if column in found else values
        return found

    def disturbed(self, inputs: PartsBatch, generator: Generator) -> PartsBatch:
        return self._each(lambda part, batch: part.disturbed(batch, generator), inputs)

    def join(self, batches: Sequence[PartsBatch]) -> PartsBatch:
        return PartsBatch(
            {n: part.join([batch[n] for batch in batches]) for n, part in self.parts.items()}
        )

    def singles(self, inputs: PartsBatch) -> list[PartsBatch]:
        columns = {name: part.singles(inputs[name]) for name, part in self.parts.items()}
        return [
            PartsBatch({n: column[row] for n, column in columns.items()})
            for row in range(len(inputs))
        ]

    def kept(self, inputs: PartsBatch, clean: PartsBatch) -> Tensor | None:
        """Of the first part of tokens, if any."""
        found = (part.kept(inputs[name], clean[name]) for name, part in self.parts.items())
        return next((places for places in found if places is not None), None)

    def _each(self, change: Callable[[Domain, Batch], Batch], inputs: PartsBatch) -> PartsBatch:
        return PartsBatch({n: change(part, inputs[n]) for n, part in self.parts.items()})
