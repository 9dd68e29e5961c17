"""Sampled texts whose chance is fixed: by a seed and the prompt, alike in both paths."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Generator as Draw
from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import SPREAD, Greedy


class Sampled(Greedy):
    """Draws from the softmax of the logits over a temperature, by inverse distribution function.

    The end token comes last, so that it is written on where u < 1 - p_end. Its margin are the
    bounded log-odds of that: those of 1 - p_end less those of u. The uniforms u of a prompt come
    from the seed and the digest of its ids, whatever its batch.

    Args:
        end: the end token.
        domain: of the prompts, which knows their digests.
        temperature: that logits are divided by.
        seed: of all texts.

    Raises:
        UsageError: for a temperature that is not positive and finite.
    """

    def __init__(
        self, end: int, domain: Tokens, temperature: float = 1.0, seed: int | str = 0
    ) -> None:
        super().__init__(end)
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(
                f"temperature = {temperature}: give a positive number, or leave it out to decode "
                "greedily"
            )
        self.domain, self.temperature, self.seed = domain, float(temperature), seed

    def seeded(self, seed: int | str) -> Sampled:
        """The same under other chance."""
        return Sampled(self.end, self.domain, self.temperature, seed)

    def draws(self, batch: Tensor, steps: int) -> Tensor:
        """(B, steps), float64 in (0, 1)."""
        found = [_uniforms(f"{self.seed} {d}", steps) for d in self.domain.fingerprints(batch)]
        return torch.stack(found).to(batch.device)

    def margin(self, logits: Tensor, draws: Tensor) -> Tensor:
        logits = logits / self.temperature
        odds = torch.logsumexp(self.without_end(logits), -1) - logits[..., self.end]
        return torch.tanh((odds - torch.logit(draws).to(logits)) / SPREAD)

    def choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        onward = self.margin(logits, draws) > 0
        passed = (self._reached(logits) <= draws[..., None]).sum(-1)
        last = logits.shape[-1] - 1 - (self.end == logits.shape[-1] - 1)
        return torch.where(onward, passed.clamp_max(last), self.end)

    def slack(self, logits: Tensor, draws: Tensor) -> Tensor:
        """How far the uniform is from the next step of the distribution function."""
        return (self._reached(logits) - draws[..., None]).abs().amin(-1).to(logits.dtype)

    def _reached(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) float64: the distribution function without the end token, in the order
        of ids."""
        shares = (logits.double() / self.temperature).softmax(-1)
        place = torch.arange(logits.shape[-1], device=logits.device)
        return shares.masked_fill(place == self.end, 0).cumsum(-1)


def _uniforms(key: str, count: int) -> Tensor:
    """(count,) float64: always the same for a key."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
    drawn = torch.rand(count, generator=Draw().manual_seed(seed), dtype=torch.float64)
    return drawn.clamp(1e-12, 1 - 1e-12)
