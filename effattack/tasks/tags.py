"""One class per token."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.domains.tokens import PAD, as_wide, padded
from effattack.errors import UsageError
from effattack.tasks.base import Task


class Tags(Task):
    """The class with the largest logit of every token.

    Outputs are (B, L, tags), with all tags at -inf behind the last token of a row; answers and
    labels are (B, L) indices, -1 there.

    Args:
        count: how many tags there are.
    """

    noun = "tags"
    padding = -torch.inf

    def __init__(self, count: int) -> None:
        self.count = count

    def check(self, labels: Tensor, count: int) -> None:
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 2:
            raise UsageError(
                "labels must be a tensor (B, L) of integer tags, -1 behind the last; in a file of "
                "JSON lines, 'tags'"
            )
        if len(labels) != count:
            raise UsageError(f"there are {count} inputs but {len(labels)} rows of labels")
        if labels.numel() and not (labels.min() >= PAD and labels.max() < self.count):
            raise UsageError(
                f"labels lie in [{int(labels.min())}, {int(labels.max())}], the victim has tags 0 "
                f"to {self.count - 1}, and -1 behind the last"
            )

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(2).masked_fill(_behind(outputs), PAD)

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        """Equal on every token that was neither changed nor inserted; without ``kept``, place by
        place."""
        if kept is None:
            a, b = as_wide(a, b)
            return (a == b).all(1)
        kept, a = as_wide(kept.to(a.device), a)
        now = padded(b, b.shape[1] + 1).gather(1, kept.clamp_min(0))
        return ((now == a) | (kept < 0)).all(1)

    def right(self, answers: Tensor, labels: Tensor, kept: Tensor | None = None) -> Tensor:
        """On every token that was neither changed nor inserted: others have no label."""
        return self.agree(labels.to(answers), answers, kept)

    def valid(self, outputs: Tensor) -> Tensor:
        fine = torch.isfinite(outputs).all(2) | _behind(outputs)
        return fine.all(1) & ~_behind(outputs)[:, 0]

    def gap(self, found: Tensor, expected: Tensor) -> Tensor:
        """Outputs may be wider than their longest row needs."""
        width = max(found.shape[1], expected.shape[1])
        found, expected = self._padded(found, width), self._padded(expected, width)
        behind = _behind(expected)
        change = torch.where(found == expected, 0.0, found - expected).abs()
        scale = expected.abs().masked_fill(behind[:, :, None], 0).flatten(1).amax(1)
        return change.flatten(1).amax(1) / scale.clamp_min(1)

    def text(self, answer: Tensor) -> str:
        """The tags, by their index."""
        return " ".join(str(tag) for tag in answer.tolist() if tag != PAD)

    def example(self, count: int, generator: Generator) -> Tensor:
        outputs = torch.randn(count, 5, self.count, generator=generator)
        used = torch.randint(1, 6, (count, 1, 1), generator=generator)
        return outputs.masked_fill(torch.arange(5).view(1, 5, 1) >= used, -torch.inf)


def _behind(outputs: Tensor) -> Tensor:
    """(B, L) bool: places behind the last token."""
    return (outputs == -torch.inf).all(2)
