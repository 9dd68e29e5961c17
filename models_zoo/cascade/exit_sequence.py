"""The network that joins the exits of :class:`~effattack.models_zoo.cascade.esn.ESN`.

Wang et al., ECCV 2024 (arXiv 2403.17726): embedded features, a causal transformer, linear heads.
Position 0 of the sequence is the saver, position k the k-th stage of the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effattack.counting.macs import linear_macs


class ExitSequence(nn.Module):
    """Features of the saver and of base stages -> what each exit adds to the saver's logits.

    Args:
        channels: of the saver's features, then of each stage with an exit.
        classes: of the logits.
        width: d, of the sequence.
        layers: of the transformer.
        heads: of its attention.
    """

    def __init__(
        self, channels: Sequence[int], classes: int, width: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(Embedding(inputs, width) for inputs in channels)
        self.blocks = nn.ModuleList(
            CausalBlock(width, heads, last=k == layers - 1) for k in range(layers)
        )
        self.exits = nn.ModuleList(nn.Linear(width, classes, bias=False) for _ in channels[1:])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """All features -> (B, exits, classes)."""
        x, _ = self.states(0, features, self.nothing(features[0]))
        return torch.stack([head(x[:, k + 1]) for k, head in enumerate(self.exits)], dim=1)

    def states(
        self, first: int, features: Sequence[Tensor], past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Go on with a sequence.

        Args:
            first: position of the first features.
            features: of the positions from there on, each (B, C, H, W).
            past: keys and values of the positions before, (B, first, 2 d) per layer.

        Returns:
            states (B, len(features), d), and the past including them.
        """
        embeddings = self.embeddings[first : first + len(features)]
        x = torch.stack([e(f) for e, f in zip(embeddings, features, strict=True)], dim=1)
        kept = []
        for block, before in zip(self.blocks, past, strict=True):
            x, now = block(x, before)
            kept.append(now)
        return x, kept

    def nothing(self, like: Tensor) -> list[Tensor]:
        """The past of an empty sequence, for as many images as there are features."""
        return [like.new_zeros(len(like), 0, 2 * block.width) for block in self.blocks]

    def macs(self, position: int) -> int:
        """Of one position: its embedding, the transformer over all so far, its head."""
        linears = [self.embeddings[position].linear, *self.exits[position - 1 : position]]
        blocks = sum(block.macs(position + 1) for block in self.blocks)
        return linear_macs(1, linears) + blocks


class Embedding(nn.Module):
    """ReLU(W LN(average over the image) + b): (B, C, H, W) -> (B, d)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs, width)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(self.norm(features.mean((-2, -1)))).relu()


class CausalBlock(nn.Module):
    """A pre-norm transformer block in which a position sees itself and those before it.

    Args:
        width: d.
        heads: of the attention.
        last: without the feed-forward network.
    """

    def __init__(self, width: int, heads: int, last: bool) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.ffn = None if last else self._ffn(width)

    @staticmethod
    def _ffn(width: int) -> nn.Sequential:
        wide = 4 * width
        return nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width)
        )

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        q, new = self.qkv(self.norm1(x)).split([self.width, 2 * self.width], dim=-1)
        kept = torch.cat([past, new], dim=1)
        q, k, v = (self._split(part) for part in (q, *kept.chunk(2, dim=-1)))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        later = scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(past.shape[1] + 1)
        mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return (x if self.ffn is None else x + self.ffn(x)), kept

    def _split(self, x: Tensor) -> Tensor:
        """(B, positions, d) -> (B, heads, positions, d / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def macs(self, positions: int) -> int:
        """Of one more position, which attends to so many, itself included."""
        linears = [m for m in self.modules() if isinstance(m, nn.Linear)]
        return linear_macs(1, linears) + 2 * positions * self.width
