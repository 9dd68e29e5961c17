"""A decoder of our own: the architecture of Llama, as small or as large as its sizes say.

Touvron et al., "Llama 2", 2023 (arXiv 2307.09288): root mean square norms before each part,
rotary positions (Su et al., arXiv 2104.09864), grouped queries, gated feed-forward layers.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo.generation.price import Price, Priced

Memory = Any
"""What a network keeps of the tokens that it has read; only the network looks inside."""


class CausalNetwork(nn.Module):
    """What a :class:`~effattack.models_zoo.generation.Generator` asks of a network.

    Reading tokens in pieces, each with the memory of those before, gives what reading them at once
    does.
    """

    price: Priced
    context: int
    """Most tokens that it can read."""
    vocabulary: int

    def lift(self, ids: Tensor) -> Tensor:
        """Ids (...) -> their embedding rows (..., width)."""
        raise NotImplementedError

    def read(self, rows: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        """The next tokens (B, n, width) -> what stands above them, of the same shape, and the
        memory of all tokens so far; all rows of a batch have read equally many."""
        raise NotImplementedError

    def draw(self, state: Tensor) -> Tensor:
        """What stands above tokens (..., width) -> logits of the next one (..., vocabulary)."""
        raise NotImplementedError

    def rows_of(self, memory: Memory, index: Tensor) -> Memory:
        """The memory of some rows of a batch."""
        raise NotImplementedError

    def stored(self, memory: Memory) -> int:
        """Bytes of a memory, all rows together."""
        raise NotImplementedError


class Sizes(NamedTuple):
    """Of a decoder; ``heads`` query heads share ``kv_heads`` keys and values."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    context: int
    theta: float = 10_000.0
    """Base of the rotary angles."""
    eps: float = 1e-5
    """Of the norms."""
    tied: bool = True
    """Whether the head is the embedding."""

    @property
    def head(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def kept(self) -> int:
        """Width of the keys of one layer, and of its values."""
        return self.kv_heads * self.head

    @property
    def price(self) -> Price:
        """Per layer W (W + 2 K) + W² + 3 W F of a token, K the width of its keys; 2 W of a pair."""
        projections = 2 * self.width * (self.width + self.kept)
        token = self.layers * (projections + 3 * self.width * self.hidden)
        draw = self.width * self.vocabulary
        pair, cached = 2 * self.layers * self.width, 2 * self.layers * self.kept
        return Price(token, pair, draw, cached, token + draw)


class Decoder(CausalNetwork):
    """Reads embedding rows, draws logits.

    Raises:
        UsageError: for sizes that do not divide each other.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        if sizes.width % (2 * sizes.heads) or sizes.heads % sizes.kv_heads:
            raise UsageError(
                f"a decoder of width {sizes.width}, {sizes.heads} heads and {sizes.kv_heads} of "
                "keys: give a width of heads times an even number, and heads a multiple of kv_heads"
            )
        self.sizes, self.price, self.context = sizes, sizes.price, sizes.context
        self.vocabulary = sizes.vocabulary
        self.words = nn.Embedding(sizes.vocabulary, sizes.width)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = nn.RMSNorm(sizes.width, sizes.eps)
        self.head = None if sizes.tied else nn.Linear(sizes.width, sizes.vocabulary, bias=False)
        self.register_buffer("turns", turns(sizes), persistent=False)

    def lift(self, ids: Tensor) -> Tensor:
        return self.words(ids)

    def read(self, rows: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        before = 0 if memory is None else memory[0][0].shape[2]
        turn = self.turns[:, before : before + rows.shape[1]]
        after = []
        for layer, kept in zip(self.layers, memory or [None] * len(self.layers), strict=True):
            rows, kept = layer(rows, turn, kept)
            after.append(kept)
        return rows, after

    def draw(self, state: Tensor) -> Tensor:
        weight = self.words.weight if self.head is None else self.head.weight
        return F.linear(self.norm(state), weight)

    def rows_of(self, memory: Memory, index: Tensor) -> Memory:
        return [(keys[index], values[index]) for keys, values in memory]

    def stored(self, memory: Memory) -> int:
        return sum(kept.numel() * kept.element_size() for pair in memory for kept in pair)


class Layer(nn.Module):
    """Attention, then the feed-forward part, each behind a norm and beside a residual."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        self.before = nn.RMSNorm(width, sizes.eps)
        self.queries = nn.Linear(width, width, bias=False)
        self.keys = nn.Linear(width, sizes.kept, bias=False)
        self.values = nn.Linear(width, sizes.kept, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.between = nn.RMSNorm(width, sizes.eps)
        self.gate = nn.Linear(width, sizes.hidden, bias=False)
        self.up = nn.Linear(width, sizes.hidden, bias=False)
        self.down = nn.Linear(sizes.hidden, width, bias=False)

    def forward(
        self, rows: Tensor, turn: Tensor, kept: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, n, width), and the keys and values of the tokens before -> both after."""
        rows, kept = self.look(rows, turn, kept)
        return self.think(rows), kept

    def look(
        self, rows: Tensor, turn: Tensor, kept: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The part of attention."""
        seen = self.before(rows)
        queries, keys, values = (
            part(seen).unflatten(2, (-1, self.sizes.head)).transpose(1, 2)
            for part in (self.queries, self.keys, self.values)
        )
        queries, keys = turned(queries, turn), turned(keys, turn)
        if kept is not None:
            keys = torch.cat([kept[0], keys], 2)
            values = torch.cat([kept[1], values], 2)
        return rows + self.out(self.attend(queries, keys, values)), (keys, values)

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The attention of this layer, causal."""
        return attended(queries, keys, values)

    def think(self, rows: Tensor) -> Tensor:
        """The feed-forward part."""
        seen = self.between(rows)
        return rows + self.down(F.silu(self.gate(seen)) * self.up(seen))


def mixed(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Attention of n tokens on s, (B, heads, n, d) on (B, kv_heads, s, d) -> (B, n, heads · d);
    heads in a row share keys and values, ``hidden`` (n, s) are not looked at."""
    count = queries.shape[2]
    grouped = queries.unflatten(1, (keys.shape[1], -1))
    scores = grouped.flatten(2, 3) @ keys.mT / math.sqrt(queries.shape[3])
    scores = scores.unflatten(2, (-1, count))
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    mix = scores.softmax(-1).flatten(2, 3) @ values
    return mix.unflatten(2, (-1, count)).flatten(1, 2).transpose(1, 2).flatten(2)


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last n of s tokens."""
    count, before = queries.shape[2], keys.shape[2] - queries.shape[2]
    if count == 1:
        return mixed(queries, keys, values)
    place = torch.arange(keys.shape[2], device=keys.device)
    return mixed(queries, keys, values, place > place[:count, None] + before)


def turns(sizes: Sizes) -> Tensor:
    """(2, context, head): cosines and sines of the rotary angles, the halves of a head alike."""
    rates = sizes.theta ** (-torch.arange(0, sizes.head, 2).double() / sizes.head)
    angles = torch.arange(sizes.context).double()[:, None] * rates
    return torch.stack([angles.cos(), angles.sin()]).repeat(1, 1, 2).float()


def turned(heads: Tensor, turn: Tensor) -> Tensor:
    """Queries or keys (B, heads, n, d), turned to their places."""
    low, high = heads.chunk(2, dim=3)
    return heads * turn[0] + torch.cat([-high, low], 3) * turn[1]
