"""What a domain is: which inputs there are, and all that is asked of them without a victim."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Generator, Tensor

from effattack.errors import UsageError

Batch: TypeAlias = Any
"""Inputs (B, ...): one tensor, or a :class:`~effattack.domains.parts.PartsBatch`. Both have a
length, rows by index, a device, ``to``, ``clone``, ``detach`` and ``split``."""


class Domain(ABC):
    """Inputs of one kind: how they are checked, rounded, compared, told apart and stored."""

    kind: ClassVar[str]
    """``"pixels"``, ``"series"``, ``"tokens"``, ``"graph"`` or ``"parts"``: what threats are looked
    up by."""
    noun: ClassVar[str]
    """What messages call one input."""
    nouns: ClassVar[str]
    """What they call several."""
    smooth: bool
    """Whether inputs have neighbours: gradients reach the input itself, and norms make sense."""
    shape: tuple[int | None, ...]
    """Of one input; None where a size is free."""

    @abstractmethod
    def check(self, inputs: Batch) -> None:
        """Refuse what no victim can be scored on.

        Raises:
            UsageError: naming the cause and the remedy.
        """

    def fits(self, inputs: Batch) -> bool:
        """Whether a batch holds at least one input of this shape, whatever its values."""
        if not isinstance(inputs, Tensor) or inputs.dim() != 1 + len(self.shape):
            return False
        sizes = zip(inputs.shape[1:], self.shape, strict=True)
        return inputs.numel() > 0 and all(wanted in (None, size) for size, wanted in sizes)

    @abstractmethod
    def place(
        self, inputs: Batch, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> Batch:
        """Inputs on a device, detached, as attacks, budgets and results hold them.

        Arrays are held in float32 unless ``dtype`` names another precision; tokens as integers.
        """

    @abstractmethod
    def snap(self, inputs: Batch) -> Batch:
        """The nearest inputs that a deployed model can be fed."""

    @abstractmethod
    def example(self, count: int) -> Batch:
        """Inputs that mean nothing: a victim is looked at with them."""

    @abstractmethod
    def pack(self, inputs: Batch) -> list[bytes]:
        """The exact content of each input, as placed: what is stored, and hashed."""

    @abstractmethod
    def unpack(self, rows: Sequence[bytes], like: Batch) -> Batch:
        """The inverse of :meth:`pack`, on the device and in the precision of ``like``."""

    @abstractmethod
    def distances(self, inputs: Batch, clean: Batch) -> dict[str, Tensor]:
        """How far each input is from its clean one, by column of the frame: (B,) float64 on CPU.

        Arrays have ``linf``, ``l2``, ``l1`` and ``pixels`` (how many places differ), tokens
        ``edits``. Only equal inputs have distance 0.
        """

    @abstractmethod
    def disturbed(self, inputs: Batch, generator: Generator) -> Batch:
        """The same inputs, half noise: they open gates that natural ones leave shut."""

    def join(self, batches: Sequence[Batch]) -> Batch:
        """One batch of several."""
        return torch.cat(list(batches))

    def stretched(self, inputs: Batch) -> Batch:
        """The same, each as long as an input can be; as they are where all are of one size."""
        return inputs

    def singles(self, inputs: Batch) -> Sequence[Batch]:
        """Batches of one input each, as each is fed alone."""
        return inputs.split(1)

    def kept(self, inputs: Batch, clean: Batch) -> Tensor | None:
        """(B, L): where each token of a clean input stands now, -1 where it does not.

        None of inputs that are no sequence of tokens: there, an answer is about the whole.
        """
        return None

    def tokens(self, inputs: Batch) -> Tensor:
        """(B,) float64: how many tokens whoever sends an input sends; NaN of what is no text."""
        return torch.full((len(inputs),), torch.nan, dtype=torch.float64)

    def describe(self) -> dict[str, Any]:
        """What a report must know to show stored inputs without the domain; plain JSON."""
        return {
            "kind": self.kind,
            "noun": self.noun,
            "nouns": self.nouns,
            "shape": list(self.shape),
        }

    def fingerprints(self, inputs: Batch) -> list[str]:
        """A hash of each input: equal inputs, and only they, have equal ones."""
        return [hashlib.sha256(row).hexdigest()[:16] for row in self.pack(inputs)]


def tensors(batch: Batch) -> Iterator[Tensor]:
    """What a batch is made of: itself, or its parts."""
    if isinstance(batch, Tensor):
        yield batch
    else:
        for part in batch.parts.values():
            yield from tensors(part)


def shape_of(batch: object) -> str:
    """The shape of a batch, or those of its parts, as messages tell it."""
    if isinstance(batch, Tensor):
        return str(tuple(batch.shape))
    parts = getattr(batch, "parts", None)
    if parts is None:
        return type(batch).__name__
    return ", ".join(f"{name} {shape_of(part)}" for name, part in parts.items())


def check_tensor(nouns: str, inputs: object) -> None:
    """Refuse what is no dense tensor of at least one input.

    Raises:
        UsageError: naming what it is, and the remedy.
    """
    if not isinstance(inputs, Tensor):
        raise UsageError(
            f"{nouns} must be a torch tensor, not {type(inputs).__name__}: "
            f"use torch.as_tensor({nouns})"
        )
    check_dense(nouns, inputs)


def check_dense(name: str, tensor: Tensor) -> None:
    """Refuse a tensor whose values cannot be read one by one.

    Raises:
        UsageError: naming it, and the remedy.
    """
    kinds = {
        "meta": tensor.is_meta,
        "nested": tensor.is_nested,
        "sparse": tensor.layout != torch.strided,
    }
    for kind, found in kinds.items():
        if found:
            raise UsageError(f"{name} are a {kind} tensor: give a dense one that holds its values")
