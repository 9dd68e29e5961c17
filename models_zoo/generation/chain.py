"""A chain of thought before the answer: when each of both ends, and what was decided there."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from effattack.counting.tallies import tally
from effattack.domains.tokens import PAD
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.steps import Decided, Rule


class ChainFirst(Rule):
    """Texts that are a chain up to its close mark, then an answer up to the end token.

    Within the chain the end token is not drawn; when its budget is spent the close mark is written
    whatever the network says, which is no decision. The end token counts from the answer on.

    Args:
        choice: how a token is chosen from logits.
        budget: most tokens of the chain, the close mark included.
        answer_cap: most tokens of the answer, the end token included.
        close: the close mark.
    """

    def __init__(self, choice: Greedy, *, budget: int, answer_cap: int, close: int) -> None:
        super().__init__(choice, budget + answer_cap)
        self.budget, self.answer_cap, self.close = budget, answer_cap, close
        self.thought = choice.ended_by(close)

    def seeded(self, seed: int | str) -> Self:
        found = super().seeded(seed)
        found.thought = self.thought.seeded(seed)
        return found

    def choose(self, logits: Tensor, draws: Tensor, before: Tensor) -> Tensor:
        chain = ~(before == self.close).any(1)
        tally("chain_tokens", chain)
        found = self.choice.choose(logits, draws)
        if before.shape[1] == self.budget - 1:
            return torch.where(chain, self.close, found)
        thought = self.thought.choose(self.choice.without_end(logits), draws)
        return torch.where(chain, thought, found)

    def goes_on(self, texts: Tensor) -> Tensor:
        answer = (~self.thinking(texts)).sum(1)
        return (texts[:, -1] != self.choice.end) & (answer < self.answer_cap)

    def weighed(self, logits: Tensor, draws: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        thinking, unended = self.thinking(texts), self.choice.without_end(logits)
        chain, forced = (
            steps[:, -logits.shape[1] :] for steps in (thinking, self.forced(thinking))
        )
        margin, slack = super().weighed(logits, draws, texts)
        thought = self.thought.slack(unended.detach(), draws).masked_fill(forced, torch.inf)
        return (
            torch.where(chain, self.thought.margin(unended, draws), margin),
            torch.where(chain, thought, slack),
        )

    def decided(self, written: Tensor) -> Decided:
        plain, chain = super().decided(written), self.thinking(written)
        answer = ~chain & (written != PAD)
        free = plain.free & ~self.forced(chain) & (answer.cumsum(1) < self.answer_cap)
        last = chain.sum(1, keepdim=True) + self.answer_cap
        return Decided(
            plain.onward & ~(chain & (written == self.close)) & free,
            free,
            torch.where(free & ~chain, last, self.cap),
        )

    def thinking(self, texts: Tensor) -> Tensor:
        """Texts (n, steps) -> (n, steps) bool: tokens of the chain, its close mark included."""
        closes = (texts == self.close).long()
        return (closes.cumsum(1) - closes == 0) & (texts != PAD)

    def forced(self, chain: Tensor) -> Tensor:
        """Same shape, bool: the step at which the budget is spent, where the chain came to it."""
        place = torch.arange(chain.shape[1], device=chain.device)
        return chain & (place == self.budget - 1)
