"""A small transformer encoder of prompts, whose blocks can be run on some of their tokens."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.domains.tokens import PAD
from effattack.victim.leaf import Leaf


class Size(NamedTuple):
    """Of an encoder."""

    vocabulary: int
    longest: int
    width: int = 32
    heads: int = 4
    hidden: int = 64
    depth: int = 4

    def block_macs(self, running: Tensor | float, tokens: Tensor | float) -> Tensor | float:
        """MACs of a block in which so many tokens run, among so many that are looked at.

        Query, output and MLP of those that run; key and value of all; two products of attention.
        """
        return (
            running * (2 * self.width**2 + 2 * self.width * self.hidden)
            + tokens * 2 * self.width**2
            + 2 * running * tokens * self.width
        )


def attended(
    query: Tensor, key: Tensor, value: Tensor, heads: int, there: Tensor | None = None
) -> Tensor:
    """Attention of queries (B, a, width) over keys and values (B, n, width): (B, a, width).

    ``there`` (B, n) bool says which of the keys there are; None: all.
    """
    query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    mask = None if there is None else there[:, None, None]
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return seen.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Attention and MLP, each behind a layer norm and added to what came in."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.before = nn.LayerNorm(size.width)
        self.query = nn.Linear(size.width, size.width)
        self.key_value = nn.Linear(size.width, 2 * size.width)
        self.out = nn.Linear(size.width, size.width)
        self.between = nn.LayerNorm(size.width)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, size.hidden), nn.GELU(), nn.Linear(size.hidden, size.width)
        )

    def forward(self, x: Tensor, keys: Tensor, there: Tensor | None = None) -> Tensor:
        """Tokens x (B, a, width) look at the tokens ``keys`` (B, n, width): (B, a, width).

        ``there`` (B, n) bool says which of the keys there are; None: all.
        """
        key, value = self.key_value(self.before(keys)).chunk(2, dim=2)
        x = x + self.out(attended(self.query(self.before(x)), key, value, self.heads, there))
        return x + self.mlp(self.between(x))


class Encoder(nn.Module):
    """Words, their places, and blocks.

    Args:
        size: of all of it.
    """

    added = 0
    """Tokens that are set around a prompt before it is read."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size
        self.words = nn.Embedding(size.vocabulary, size.width)
        self.places = nn.Parameter(0.1 * torch.randn(size.longest, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))

    def framed(self, batch: Tensor) -> Tensor:
        """Ids (B, L) -> (B, L + added), as :meth:`read` reads them."""
        return batch

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        """Embedding rows of places (B, k)."""
        return Leaf(self.words(batch.gather(1, places).clamp_min(0)), places)

    def read(self, batch: Tensor, leaf: Leaf | None = None) -> Tensor:
        """Ids (B, L) -> (B, L + added, width): words, those of a leaf in its places, and where they
        are."""
        found = self.words(batch.clamp_min(0))
        if leaf is not None:
            found = found.scatter(1, leaf.places[:, :, None].expand_as(leaf.rows), leaf.rows)
        return found + self.places[: batch.shape[1]]

    def block_macs(self, running: Tensor | float, tokens: Tensor | float) -> Tensor | float:
        """MACs of a block in which so many tokens run, among so many that are looked at."""
        return self.size.block_macs(running, tokens)


def classifier(width: int, classes: int) -> nn.Sequential:
    """A layer norm and a linear layer."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))


def there(batch: Tensor) -> Tensor:
    """(B, L) bool: tokens that are no padding."""
    return batch != PAD
