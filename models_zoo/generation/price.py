"""What it costs to write with a cache, in closed form: of prompt lengths and passes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Priced(Protocol):
    """Float64 each, of shapes that broadcast: prompt lengths, template included, and passes."""

    def macs(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Multiply-accumulates of all passes."""
        ...

    def held(self, prompt: Tensor, passes: Tensor) -> Tensor:
        """Numbers in the cache at the end."""
        ...

    def moved(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Numbers that pass through memory, modelled."""
        ...


class Price(NamedTuple):
    """What one token costs, all layers together.

    A prompt of P tokens is read at once, then every pass but the first reads the token before it,
    and every pass draws one token; n passes read q = P + n - 1 tokens.
    """

    token: int
    """MACs of the matrices that every token read meets."""
    pair: int
    """MACs of attention for every token read and every token that it is held against."""
    draw: int
    """MACs of the head, for every token drawn."""
    cached: int
    """Numbers kept of every token read."""
    weights: int
    """Numbers of the matrices that every pass reads."""

    def macs(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Float64, of shapes that broadcast: with a cache

            q · token + (P² + Σ_{s=P+1}^{P+n-1} s) · pair + n · draw;

        without one, every pass reads all tokens before it,

            Σ_{s=P}^{P+n-1} (s · token + s² · pair) + n · draw.

        The whole square of the prompt is multiplied, though half of it is masked.
        """
        p, n = prompt.double(), passes.double()
        if cached:
            read, pairs = p + n - 1, p**2 + _sum(p + n - 1) - _sum(p)
        else:
            read, pairs = _sum(p + n - 1) - _sum(p - 1), _squares(p + n - 1) - _squares(p - 1)
        return read * self.token + pairs * self.pair + n * self.draw

    def held(self, prompt: Tensor, passes: Tensor) -> Tensor:
        """Float64: numbers in the cache at the end."""
        return self.cached * (prompt + passes - 1).double()

    def moved(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Float64, modelled: numbers that pass through memory, the weights once per pass, and the
        cache of the tokens before, which every pass reads and adds to."""
        p, n = prompt.double(), passes.double()
        kept = _sum(p + n - 1) - _sum(p - 1) if cached else 0
        return n * self.weights + kept * self.cached


class SourcePrice(NamedTuple):
    """What a decoder costs that looks at an encoded prompt.

    The encoder reads a prompt of S tokens once; the decoder reads its start tokens, then in every
    pass but the first the token before it. Without a cache, keys and values of the prompt are made
    anew in every pass, and the encoder's states are kept.
    """

    token: int
    """MACs of the encoder's matrices, for every token of the prompt."""
    pair: int
    """MACs of the encoder's attention, for every pair of tokens of the prompt."""
    kept: int
    """MACs of the decoder's keys and values of every token of the prompt."""
    look: int
    """MACs of the decoder's attention, for every token read and every token of the prompt."""
    cached: int
    """Numbers kept of every token of the prompt."""
    decoder: Price
    """Of the tokens that the decoder reads, all its matrices but those of ``kept`` included."""
    start: int = 1
    """Tokens that the decoder reads in its first pass."""
    again: int = 0
    """MACs of ``token`` with weights that are met a second time, as filters that slide are."""

    def macs(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """With a cache, n passes after a prompt of S tokens, from P start tokens, cost

            S · token + S² · pair + S · kept + (P + n - 1) · S · look

        beside the decoder's own after a prompt of P tokens; without one, ``kept`` counts n times
        and ``look`` for P + ... + (P + n - 1) tokens.
        """
        s, n, first = prompt.double(), passes.double(), self.start
        last = first + n - 1
        made, looks = (1, last) if cached else (n, _sum(last) - first * (first - 1) / 2)
        own = self.decoder.macs(torch.full_like(n, first), n, cached)
        return self.encoder(s) + s * (made * self.kept + looks * self.look) + own

    def encoder(self, prompt: Tensor) -> Tensor:
        """Of these, what the encoder costs, whatever is written: S · token + S² · pair."""
        s = prompt.double()
        return s * self.token + s**2 * self.pair

    def held(self, prompt: Tensor, passes: Tensor) -> Tensor:
        """Numbers in the cache at the end, those of the prompt included."""
        own = self.decoder.held(torch.full_like(passes, self.start), passes)
        return prompt.double() * self.cached + own

    def moved(self, prompt: Tensor, passes: Tensor, cached: bool = True) -> Tensor:
        """Modelled: the encoder's weights once, the decoder's and the kept keys and values of the
        prompt once per pass, and the cache of the text as in :class:`Price`.

        The weights of ``token`` and ``kept`` are as many as the MACs of one token, but for those of
        ``again``.
        """
        n = passes.double()
        made = 1 if cached else n
        own = self.decoder.moved(torch.full_like(n, self.start), n, cached)
        return (
            self.token
            - self.again
            + made * self.kept
            + n * prompt.double() * self.cached * cached
            + own
        )


def _sum(last: Tensor) -> Tensor:
    """1 + 2 + ... + last."""
    return last * (last + 1) / 2


def _squares(last: Tensor) -> Tensor:
    """1² + 2² + ... + last²."""
    return last * (last + 1) * (2 * last + 1) / 6
