"""Text that a generator writes, as token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from effattack.domains.tokens import PAD, Tokenizer, as_wide, lengths
from effattack.errors import UsageError
from effattack.tasks.base import Task


class Text(Task):
    """What was written after the prompt.

    Outputs are ids (B, L), padded with -1 behind the last; answers are the same without the end
    token; labels are answers. An attacked answer agrees if it begins with the clean one: whoever
    makes a generator go on has changed nothing that was asked for.

    Args:
        cap: most tokens that are written; None where nothing but the end token stops it.
        end: the token that ends a text, or several; None where outputs leave it out.
        tokenizer: what makes the text of tables; None: ids stand there.
    """

    noun, symmetric, padding = "text", False, PAD

    def __init__(
        self,
        cap: int | None = None,
        end: int | Sequence[int] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        if cap is not None and cap < 1:
            raise UsageError(f"Text: cap = {cap!r}: give a whole number of at least 1, or None")
        self.cap, self.tokenizer = cap, tokenizer
        self.ends: tuple[int, ...] = (end,) if isinstance(end, int) else tuple(end or ())

    @property
    def end(self) -> int | None:
        """The token that ends a text, the first of several; None where outputs leave it out."""
        return self.ends[0] if self.ends else None

    def check(self, labels: Tensor, count: int) -> None:
        if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dim() != 2:
            raise UsageError(
                "labels must be a tensor (B, L) of token ids, -1 behind the last; in a file of "
                "JSON lines, an 'answer', which may be empty"
            )
        if len(labels) != count:
            raise UsageError(f"there are {count} inputs but {len(labels)} rows of labels")

    def answer(self, outputs: Tensor) -> Tensor:
        behind = (outputs == PAD).cumsum(1) > 0
        for end in self.ends:
            behind |= (outputs == end).cumsum(1) > 0
        return outputs.masked_fill(behind, PAD)

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        a, b = as_wide(a, b)
        return ((a == b) | (a == PAD)).all(1)

    def right(self, answers: Tensor, labels: Tensor, kept: Tensor | None = None) -> Tensor:
        answers, labels = as_wide(answers, labels.to(answers))
        return (answers == labels).all(1)

    def valid(self, outputs: Tensor) -> Tensor:
        whole = not outputs.is_floating_point() and outputs.dim() == 2
        if not whole or (self.cap is not None and outputs.shape[1] > self.cap):
            return torch.zeros(len(outputs), dtype=torch.bool, device=outputs.device)
        return (outputs >= PAD).all(1) & (lengths(outputs) == (outputs != PAD).sum(1))

    def gap(self, found: Tensor, expected: Tensor) -> Tensor:
        """How many tokens differ, place by place."""
        found, expected = as_wide(found, expected)
        return (found != expected).sum(1).double()

    def text(self, answer: Tensor) -> str:
        """The text, or its ids where there is no tokenizer."""
        ids = answer[answer != PAD].tolist()
        return " ".join(map(str, ids)) if self.tokenizer is None else self.tokenizer.decode(ids)

    def example(self, count: int, generator: Generator) -> Tensor:
        width = min(self.cap or 6, 6)
        outputs = torch.randint(0, 3, (count, width), generator=generator)
        used = torch.randint(0, width + 1, (count, 1), generator=generator)
        return outputs.masked_fill(torch.arange(width) >= used, PAD)
