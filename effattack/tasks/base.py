"""What a task is: how answers are read from outputs, compared with each other and with labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Generator, Tensor


class Task(ABC):
    """What a victim is asked for.

    *Outputs* are what ``forward`` returns and ``trace().logits`` holds, one row per input;
    *answers* are what is read from them, rows again.
    """

    noun: ClassVar[str]
    """What messages call one answer."""
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
    def right(self, answers: Tensor, labels: Any) -> Tensor:
        """(B,) bool: whether answers are what the labels say."""

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

    def close(self, found: Tensor, expected: Tensor, tolerance: float) -> Tensor:
        """(B,) bool: whether outputs differ by rounding alone."""
        return self.gap(found, expected) <= tolerance

    def lead(self, outputs: Tensor, wanted: Tensor) -> Tensor | None:
        """(B,) in [-1, 1], differentiable: how far the wanted answer is ahead of all others.

        None where there is no such gradient: then agreement only filters candidates.
        """
        return None
