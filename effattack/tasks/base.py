"""What a task is: how answers are read from outputs, compared with each other and with labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


class Task(ABC):
    """What a victim is asked for.

    *Outputs* are what ``forward`` returns and ``trace().logits`` holds, one row per input;
    *answers* are what is read from them, rows again.
    """

    noun: ClassVar[str]
    """What messages call one answer."""
    outputs: ClassVar[str] = "one tensor of outputs, as its task reads them"
    """What ``forward`` returns, as messages ask for it."""
    padding: ClassVar[float | None] = None
    """What stands behind the last part of a shorter output; None: all have one shape."""
    exact: ClassVar[bool] = False
    """Whether answers agree just where their texts are equal: stored rows tell it."""
    symmetric: ClassVar[bool] = True
    """Whether ``agree(a, b)`` is ``agree(b, a)``."""

    @abstractmethod
    def check(self, labels: Any, count: int) -> None:
        """Refuse labels that do not belong to ``count`` inputs.

        Raises:
            UsageError: naming the cause and the remedy.
        """

    @abstractmethod
    def answer(self, outputs: Tensor) -> Tensor:
        """The answer to each input."""

    @abstractmethod
    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B,) bool: whether the answers to attacked inputs ``b`` agree with the clean ones ``a``.

        ``kept`` is :meth:`effattack.domains.Domain.kept` of the two inputs; tags need it.
        """

    @abstractmethod
    def right(self, answers: Tensor, labels: Any, kept: Tensor | None = None) -> Tensor:
        """(B,) bool: whether answers are what the labels of the clean inputs say.

        ``kept`` is as of :meth:`agree`, where the answers are to attacked inputs.
        """

    @abstractmethod
    def valid(self, outputs: Tensor) -> Tensor:
        """(B,) bool: whether an answer can be read at all; NaN has none."""

    @abstractmethod
    def gap(self, found: Tensor, expected: Tensor) -> Tensor:
        """(B,): how far outputs differ, relative to the largest expected one, or to 1."""

    @abstractmethod
    def text(self, answer: Tensor) -> str | int:
        """What tables hold of the answer to one input."""

    @abstractmethod
    def example(self, count: int, generator: Generator) -> Tensor:
        """Valid outputs that mean nothing: the laws of the task are checked on them."""

    def fits(self, outputs: Tensor, count: int) -> bool:
        """Whether outputs have the form of those of ``count`` inputs, whatever their values."""
        return len(outputs) == count

    def form(self, count: int) -> str:
        """That form, in words."""
        return f"{count} rows: {self.outputs}"

    def describe(self) -> dict[str, Any]:
        """What a report must know to show stored answers without the task; plain JSON."""
        return {"noun": self.noun}

    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of one batch of several."""
        if self.padding is not None:
            widest = max(each.shape[1] for each in outputs)
            outputs = [self._padded(each, widest) for each in outputs]
        return torch.cat(list(outputs))

    def _padded(self, outputs: Tensor, width: int) -> Tensor:
        behind = (0, 0) * (outputs.dim() - 2) + (0, width - outputs.shape[1])
        return pad(outputs, behind, value=self.padding)

    def close(self, found: Tensor, expected: Tensor, tolerance: float) -> Tensor:
        """(B,) bool: whether outputs differ by rounding alone."""
        return self.gap(found, expected) <= tolerance

    def lead(self, outputs: Tensor, wanted: Tensor) -> Tensor | None:
        """(B,) in [-1, 1], differentiable: how far the wanted answer is ahead of all others.

        None where there is no such gradient: then agreement only filters candidates.
        """
        return None
