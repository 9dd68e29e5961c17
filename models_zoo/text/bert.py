"""BERT's encoder, whose blocks can be run on some of their tokens.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
NAACL 2019 (arXiv 1810.04805). MiniLM is one of six blocks (Wang et al. 2020, arXiv 2002.10957).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from effattack.domains.tokens import PAD, lengths
from effattack.models_zoo.text.encoder import Encoder, Size, attended
from effattack.victim.leaf import Leaf

EPS = 1e-12
"""Of all layer norms."""


class BertBlock(nn.Module):
    """Attention and MLP, each added to what came in, with a layer norm behind."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.query = nn.Linear(size.width, size.width)
        self.key = nn.Linear(size.width, size.width)
        self.value = nn.Linear(size.width, size.width)
        self.out = nn.Linear(size.width, size.width)
        self.after_attention = nn.LayerNorm(size.width, eps=EPS)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, size.hidden), nn.GELU(), nn.Linear(size.hidden, size.width)
        )
        self.after_mlp = nn.LayerNorm(size.width, eps=EPS)

    def forward(self, x: Tensor, keys: Tensor, there: Tensor | None = None) -> Tensor:
        """Tokens x (B, a, width) look at the tokens ``keys`` (B, n, width): (B, a, width).

        ``there`` (B, n) bool says which of the keys there are; None: all.
        """
        query, key, value = self.query(x), self.key(keys), self.value(keys)
        x = self.after_attention(x + self.out(attended(query, key, value, self.heads, there)))
        return self.after_mlp(x + self.mlp(x))


class Bert(Encoder):
    """Words, their places, a norm, and blocks; every prompt is read between two special tokens.

    Args:
        size: of all of it; ``longest`` with the two.
        first, last: ids of the tokens before and behind a prompt, [CLS] and [SEP].
    """

    added = 2

    def __init__(self, size: Size, first: int, last: int) -> None:
        super().__init__(size._replace(depth=0))
        self.size, self.first, self.last = size, first, last
        self.kind = nn.Parameter(torch.zeros(size.width))
        self.norm = nn.LayerNorm(size.width, eps=EPS)
        self.blocks = nn.ModuleList(BertBlock(size) for _ in range(size.depth))

    def framed(self, batch: Tensor) -> Tensor:
        found = pad(pad(batch, (1, 0), value=self.first), (0, 1), value=PAD)
        return found.scatter(1, lengths(batch)[:, None] + 1, self.last)

    def read(self, batch: Tensor, leaf: Leaf | None = None) -> Tensor:
        """Ids (B, L) -> (B, L + 2, width); a leaf's rows stand one place further than in the batch.

        The last token is set behind them: a place of the leaf past the end of its prompt is not
        read.
        """
        found = self.words(self.framed(batch).clamp_min(0))
        if leaf is not None:
            found = _set(found, leaf.places + 1, leaf.rows)
            end = lengths(batch)[:, None] + 1
            found = _set(found, end, self.words(torch.full_like(end, self.last)))
        return self.norm(found + self.places[: found.shape[1]] + self.kind)


def _set(found: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    return found.scatter(1, places[:, :, None].expand_as(rows), rows)
