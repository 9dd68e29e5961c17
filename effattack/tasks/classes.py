"""One class per input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from effattack.domains.base import check_dense
from effattack.errors import UsageError
from effattack.tasks.base import Task


class Classes(Task):
    """The class with the largest of the logits (B, classes).

    Args:
        count: how many classes there are.
        names: what a report calls them, in their order; by default their indices.

    Raises:
        UsageError: for names that are not as many.
    """

    noun, exact = "class", True
    outputs = "plain logits, a tensor (B, classes)"

    def __init__(self, count: int, names: Sequence[str] = ()) -> None:
        if names and len(names) != count:
            raise UsageError(f"{len(names)} names for {count} classes: give one of each, or none")
        self.count, self.names = count, tuple(names)

    def check(self, labels: Tensor, count: int) -> None:
        check_labels(labels, count, self.count)

    def fits(self, outputs: Tensor, count: int) -> bool:
        return tuple(outputs.shape) == (count, self.count) and outputs.is_floating_point()

    def form(self, count: int) -> str:
        return f"({count}, {self.count}) floats: return plain logits, or correct num_classes"

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1)

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        return a == b

    def right(self, answers: Tensor, labels: Tensor, kept: Tensor | None = None) -> Tensor:
        return answers == labels.to(answers)

    def valid(self, outputs: Tensor) -> Tensor:
        return torch.isfinite(outputs).all(1)

    def gap(self, found: Tensor, expected: Tensor) -> Tensor:
        return (found - expected).abs().amax(1) / expected.abs().amax(1).clamp_min(1)

    def text(self, answer: Tensor) -> int:
        """The class index."""
        return int(answer)

    def describe(self) -> dict[str, Any]:
        told = super().describe()
        return {**told, "names": list(self.names)} if self.names else told

    def example(self, count: int, generator: Generator) -> Tensor:
        return torch.randn(count, self.count, generator=generator)

    def lead(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """m / (s + |m|), m the difference to the best other logit, s the standard deviation of all:
        bounded as the margins of gates are."""
        return lead(outputs, wanted)


def lead(logits: Tensor, classes: Tensor) -> Tensor:
    """How far classes (B,) are ahead of the best other in logits (B, classes): (B,) in [-1, 1]."""
    chosen = classes[:, None]
    rival = logits.scatter(1, chosen, -torch.inf).amax(1)
    ahead = logits.gather(1, chosen)[:, 0] - rival
    spread = logits.detach().std(1).clamp_min(torch.finfo(logits.dtype).eps)
    return ahead / (spread + ahead.abs())


def check_labels(labels: Tensor, count: int, num_classes: int) -> None:
    """Refuse labels that do not belong to ``count`` images of ``num_classes`` classes.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    integer = isinstance(labels, Tensor) and not (
        labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool
    )
    if not integer or labels.dim() != 1:
        raise UsageError("labels must be a tensor (B,) of integer class indices")
    check_dense("labels", labels)
    labels = labels.long()  # torch has no order for its larger unsigned types
    if len(labels) != count:
        raise UsageError(f"there are {count} inputs but {len(labels)} labels: they must pair up")
    if count and not (int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise UsageError(
            f"labels lie in [{int(labels.min())}, {int(labels.max())}], the victim has classes "
            f"0 to {num_classes - 1}"
        )
