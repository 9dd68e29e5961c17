"""What a decoder with a cache costs, in closed form: of prompt lengths and passes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


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


def _sum(last: Tensor) -> Tensor:
    """1 + 2 + ... + last."""
    return last * (last + 1) / 2


def _squares(last: Tensor) -> Tensor:
    """1² + 2² + ... + last²."""
    return last * (last + 1) * (2 * last + 1) / 6
