"""What a generator concludes, behind the mark that ends its chain of thought."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from effattack.domains.tokens import PAD, Tokenizer, as_wide
from effattack.errors import UsageError
from effattack.tasks.text import Text


class Conclusion(Text):
    """What stands behind the first mark of a text; nothing where there is none.

    Outputs are ids (B, L) as those of :class:`Text`, the chain included; answers and labels are
    what follows the mark. Two answers agree if they are the same: whoever makes a generator think
    longer has changed nothing that was asked for, whoever makes its answer go on has.

    Args:
        mark: the token that the answer stands behind.
        cap: most tokens that are written, chain, mark and answer together.
        end: the token that ends a text.
        tokenizer: what makes the text of tables; None: ids stand there.

    Raises:
        UsageError: for a mark that ends texts.
    """

    noun, symmetric = "conclusion", True

    def __init__(
        self,
        mark: int,
        cap: int | None = None,
        end: int | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__(cap, end, tokenizer)
        if mark == end:
            raise UsageError(f"Conclusion: the mark {mark} ends texts, nothing stands behind it")
        self.mark = mark

    def answer(self, outputs: Tensor) -> Tensor:
        text = super().answer(outputs)
        before = ((text == self.mark).cumsum(1) == 0).sum(1, keepdim=True)
        place = before + 1 + torch.arange(text.shape[1], device=text.device)
        behind = text.gather(1, place.clamp_max(text.shape[1] - 1))
        return behind.masked_fill(place >= text.shape[1], PAD)

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        a, b = as_wide(a, b)
        return (a == b).all(1)

    def example(self, count: int, generator: Generator) -> Tensor:
        outputs = super().example(count, generator)
        return outputs.masked_fill(outputs == 0, self.mark)
