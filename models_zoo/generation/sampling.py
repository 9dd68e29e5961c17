"""Sampled texts whose chance is fixed: by a seed and the prompt, alike in both paths."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator as Draw
from torch import Tensor

from effattack.domains import Domain
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import SPREAD, Greedy


class Sampling(NamedTuple):
    """What tokens are drawn from: a softmax, or its head.

    The head is that of ``generate`` in transformers: first the ``top_k`` likeliest tokens and those
    as likely as the last of them, then the fewest of these, the likeliest first, whose shares reach
    ``top_p``.
    """

    temperature: float = 1.0
    """That logits are divided by."""
    top_k: int | None = None
    top_p: float | None = None

    def check(self) -> None:
        """Refuse what is no distribution.

        Raises:
            UsageError: naming the setting, and the remedy.
        """
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(
                f"temperature = {self.temperature}: give a positive number, or leave it out to "
                "decode greedily"
            )
        if self.top_k is not None and (not isinstance(self.top_k, int) or self.top_k < 1):
            raise UsageError(
                f"top_k = {self.top_k}: give a whole number of at least 1, or leave it out to draw "
                "from all tokens"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(
                f"top_p = {self.top_p}: give a share above 0, at most 1, or leave it out to draw "
                "from all tokens"
            )

    def of(self, logits: Tensor) -> Tensor:
        """Logits (..., vocabulary) -> those that are drawn from; of a token that is cut off, so
        low a one that its share is 0."""
        logits = logits / self.temperature
        return _without(logits, self.cut(logits.detach()))

    def cut(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) bool: tokens that are cut off."""
        cut = torch.zeros_like(logits, dtype=torch.bool)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            cut = logits < logits.topk(self.top_k, -1).values[..., -1:]
        if self.top_p is not None:
            order, behind = _tails(_without(logits, cut))
            beyond = behind <= 1 - self.top_p
            beyond[..., -1] = False  # the likeliest stays
            cut = cut | beyond.gather(-1, order.argsort(-1))
        return cut

    def edge(self, logits: Tensor) -> Tensor:
        """(...): how far logits are from another head, in log-odds or shares; inf without one."""
        logits = logits / self.temperature
        found = torch.full(logits.shape[:-1], torch.inf, dtype=logits.dtype, device=logits.device)
        cut = Sampling(1.0, self.top_k).cut(logits)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            last, first = logits.topk(self.top_k + 1, -1).values[..., -2:].unbind(-1)
            found = torch.tanh((last - first) / SPREAD)
        if self.top_p is not None:
            _, behind = _tails(_without(logits, cut))
            inner = (behind[..., :-1] - (1 - self.top_p)).abs().amin(-1)
            found = torch.minimum(found, inner.to(found))
        return found


class Sampled(Greedy):
    """Draws from the softmax of the logits, or its head, by inverse distribution function.

    The end tokens come last, so that it is written on where u < 1 - p_end, of the shares that are
    drawn from: 1 where all end tokens are cut off. Its margin are the bounded log-odds of that:
    those of 1 - p_end less those of u. The uniforms u of a prompt come from the seed and the digest
    of its ids, whatever its batch.

    Args:
        end: the end token, or several.
        domain: of the prompts, which knows their digests.
        temperature, top_k, top_p: see :class:`Sampling`.
        seed: of all texts.

    Raises:
        UsageError: for a distribution that is none.
    """

    def __init__(
        self,
        end: int | Sequence[int],
        domain: Domain,
        temperature: float = 1.0,
        seed: int | str = 0,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        super().__init__(end)
        self.domain, self.seed = domain, seed
        self.sampling = Sampling(temperature, top_k, top_p)
        self.sampling.check()

    def seeded(self, seed: int | str) -> Sampled:
        """The same under other chance."""
        temperature, top_k, top_p = self.sampling
        return Sampled(self.ends, self.domain, temperature, seed, top_k=top_k, top_p=top_p)

    def ended_by(self, end: int) -> Sampled:
        temperature, top_k, top_p = self.sampling
        return Sampled(end, self.domain, temperature, self.seed, top_k=top_k, top_p=top_p)

    def draws(self, batch: Tensor, steps: int) -> Tensor:
        """(B, steps), float64 in (0, 1)."""
        found = [_uniforms(f"{self.seed} {d}", steps) for d in self.domain.fingerprints(batch)]
        return torch.stack(found).to(batch.device)

    def margin(self, logits: Tensor, draws: Tensor) -> Tensor:
        logits = self.sampling.of(logits)
        ends = torch.logsumexp(logits[..., list(self.ends)], -1)
        odds = torch.logsumexp(self.without_end(logits), -1) - ends
        return torch.tanh((odds - torch.logit(draws).to(logits)) / SPREAD)

    def choose(self, logits: Tensor, draws: Tensor) -> Tensor:
        shares = self._shares(logits)
        ends = torch.tensor(self.ends, device=logits.device)
        others = shares.masked_fill(self.is_end(torch.arange(shares.shape[-1]).to(ends)), 0)
        word = _first_beyond(others, others.cumsum(-1), draws)
        last = shares[..., ends]
        reached = others.sum(-1, keepdim=True) + last.cumsum(-1)
        end = ends[_first_beyond(last, reached, draws)]
        return torch.where(self.margin(logits, draws) > 0, word, end)

    def slack(self, logits: Tensor, draws: Tensor) -> Tensor:
        """How far the uniform is from the next step of the distribution function, or the logits
        from another head."""
        shares = self._shares(logits)
        place = torch.arange(logits.shape[-1], device=logits.device)
        others = shares.masked_fill(self.is_end(place), 0)
        ends = others.sum(-1, keepdim=True) + shares[..., list(self.ends)].cumsum(-1)
        steps = torch.cat([others.cumsum(-1), ends[..., :-1]], -1)
        near = (steps - draws[..., None]).abs().amin(-1).to(logits.dtype)
        return torch.minimum(near, self.sampling.edge(logits))

    def _shares(self, logits: Tensor) -> Tensor:
        """(..., vocabulary) float64: of each token."""
        return self.sampling.of(logits.double()).softmax(-1)


def _without(logits: Tensor, cut: Tensor) -> Tensor:
    """With no share of some tokens, and finite gradients where no other is left."""
    return logits.masked_fill(cut, torch.finfo(logits.dtype).min / 2)


def _tails(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens (..., vocabulary), the least likely first, and the share of each and all before."""
    ordered, order = logits.sort(-1)
    return order, ordered.softmax(-1).cumsum(-1)


def _first_beyond(shares: Tensor, reached: Tensor, draws: Tensor) -> Tensor:
    """Of distribution functions (..., n), the first token with a share at which they pass a draw;
    where rounding leaves none, the last one with a share."""
    some = shares > 0
    beyond = some & (reached > draws[..., None])
    last = shares.shape[-1] - 1 - some.flip(-1).int().argmax(-1)
    return torch.where(beyond.any(-1), beyond.int().argmax(-1), last)


def _uniforms(key: str, count: int) -> Tensor:
    """(count,) float64: always the same for a key."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
    drawn = torch.rand(count, generator=Draw().manual_seed(seed), dtype=torch.float64)
    return drawn.clamp(1e-12, 1 - 1e-12)
