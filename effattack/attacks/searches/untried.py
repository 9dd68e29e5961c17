"""No prompt is run twice: which of some candidates are new to the input that they were made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Generator, Tensor


@dataclass
class Untried:
    """The prompts that were run for each input, by a number each.

    The number is a random linear form of the ids, modulo 2^64: two prompts share one by chance once
    in some 10^12 pairs, and then the second of them is not run.
    """

    keys: Tensor
    """(L,) int64, the coefficients."""
    known: Tensor
    """(B, n) int64, the numbers of what was run."""

    @classmethod
    def but(cls, inputs: Tensor) -> Self:
        """All but these, (B, L)."""
        generator = Generator().manual_seed(0)
        keys = torch.randint(1, 2**40, (inputs.shape[1],), generator=generator).to(inputs.device)
        return cls(keys, (inputs * keys).sum(1, keepdim=True))

    def rows(self, index: Tensor) -> Untried:
        """Of some inputs."""
        return Untried(self.keys, self.known[index])

    def take(self, pool: Tensor, count: int) -> Tensor:
        """The first ``count`` of a pool (n, B, L) that are new, for each input; known from now on.

        Where fewer are new, known ones fill up.
        """
        numbers = (pool * self.keys).sum(2).T
        old = (numbers[:, :, None] == self.known[:, None]).any(2)
        old |= (numbers[:, :, None] == numbers[:, None]).tril(-1).any(2)
        chosen = old.byte().argsort(dim=1, stable=True)[:, :count]
        self.known = torch.cat([self.known, numbers.gather(1, chosen)], 1)
        return pool.gather(0, chosen.T[:, :, None].expand(-1, -1, pool.shape[2]))
