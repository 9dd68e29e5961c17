"""How the next token is chosen from logits, and how far the end token was from being it."""

from __future__ import annotations

import torch
from torch import Tensor

SPREAD = 4.0
"""Log-odds at which a margin is tanh(1)."""


class Greedy:
    """The likeliest token; of equally likely ones the end token.

    Its margin are the bounded log-odds of the best other token against the end token.

    Args:
        end: the end token.
    """

    def __init__(self, end: int) -> None:
        self.end = end

    def seeded(self, seed: int | str) -> Greedy:
        """The same under other chance: itself."""
        return self

    def draws(self, batch: Tensor, steps: int) -> Tensor:
        """(B, steps): what chance has to do with it: nothing."""
        return torch.zeros(len(batch), steps, device=batch.device)

    def margin(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Logits (..., vocabulary), draws (...) -> (...): positive where it is written on."""
        rival = self.without_end(logits.detach()).argmax(-1, keepdim=True)
        lead = logits.gather(-1, rival)[..., 0] - logits[..., self.end]
        return torch.tanh(lead / SPREAD)

    def choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Logits (..., vocabulary), draws (...) -> (...): token ids."""
        onward = self.margin(logits, draws) > 0
        return torch.where(onward, self.without_end(logits).argmax(-1), self.end)

    def slack(self, logits: Tensor, draws: Tensor) -> Tensor:
        """(...): how far the choice is from another one, in the unit of margins."""
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        return torch.tanh((first - second) / SPREAD)

    def without_end(self, logits: Tensor) -> Tensor:
        """Logits with that of the end token at -inf."""
        place = torch.arange(logits.shape[-1], device=logits.device)
        return logits.masked_fill(place == self.end, -torch.inf)
