"""How the next token is chosen from logits, and how far the end token was from being it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SPREAD = 4.0
"""Log-odds at which a margin is tanh(1)."""


class Greedy:
    """The likeliest token; of equally likely ones an end token.

    Its margin are the bounded log-odds of the best other token against the best end token.

    Args:
        end: the end token, or several: each ends a text.
    """

    def __init__(self, end: int | Sequence[int]) -> None:
        self.ends: tuple[int, ...] = (end,) if isinstance(end, int) else tuple(end)

    @property
    def end(self) -> int:
        """The end token, the first of several."""
        return self.ends[0]

    def seeded(self, seed: int | str) -> Greedy:
        """The same under other chance: itself."""
        return self

    def ended_by(self, end: int) -> Greedy:
        """The same with another end token."""
        return Greedy(end)

    def draws(self, batch: Tensor, steps: int) -> Tensor:
        """(B, steps): what chance has to do with it: nothing."""
        return torch.zeros(len(batch), steps, device=batch.device)

    def margin(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Logits (..., vocabulary), draws (...) -> (...): positive where it is written on."""
        rival = self.without_end(logits.detach()).argmax(-1, keepdim=True)
        lead = logits.gather(-1, rival)[..., 0] - logits[..., list(self.ends)].amax(-1)
        return torch.tanh(lead / SPREAD)

    def choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Logits (..., vocabulary), draws (...) -> (...): token ids."""
        onward = self.margin(logits, draws) > 0
        ends = torch.tensor(self.ends, device=logits.device)
        best = ends[logits[..., ends].argmax(-1)]
        return torch.where(onward, self.without_end(logits).argmax(-1), best)

    def slack(self, logits: Tensor, draws: Tensor) -> Tensor:
        """(...): how far the choice is from another one, in the unit of margins."""
        first, second = logits.topk(2, dim=-1).values.unbind(-1)
        return torch.tanh((first - second) / SPREAD)

    def is_end(self, words: Tensor) -> Tensor:
        """(...) bool: which of these tokens end a text."""
        return torch.isin(words, torch.tensor(self.ends, device=words.device))

    def without_end(self, logits: Tensor) -> Tensor:
        """Logits with those of the end tokens at -inf."""
        place = torch.arange(logits.shape[-1], device=logits.device)
        return logits.masked_fill(self.is_end(place), -torch.inf)
