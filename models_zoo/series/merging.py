"""A small transformer on patches of a series, whose neighbouring tokens merge where they are alike.

Local merging of time series tokens is that of Götz et al., "Efficient Time Series Processing for
Transformers and State-Space Models through Token Merging", ICML 2025 (arXiv 2405.17951); as they
note, with a threshold in place of a rate the number of merges follows the input. Sizes,
proportional attention and keys as the measure are those of ToMe (Bolya et al., ICLR 2023,
arXiv 2210.09461).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.counting.macs import linear_macs
from effattack.domains import Series
from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.ragged import (
    Layout,
    merge_heads,
    pack,
    split_heads,
)
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    project_heads,
    queries_keys_values,
)
from effattack.victim import Gate, Trace, Victim
from effattack.victim.margins import bounded


class PatchTransformer(nn.Module):
    """Patches of a series as tokens, timm's blocks, and a classifier on the mean token.

    Args:
        channels, length: of a series.
        patch: steps of a token; divides the length.
        width, depth, heads, mlp_ratio: of the blocks.
        classes: of the classifier.
    """

    def __init__(
        self,
        channels: int,
        length: int,
        *,
        patch: int,
        classes: int,
        width: int = 32,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        self.channels, self.length, self.tokens = channels, length, length // patch
        self.embed = nn.Conv1d(channels, width, patch, patch)
        self.place = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, qkv_bias=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def tokenise(self, series: Tensor) -> Tensor:
        """(B, channels, length) -> tokens (B, N, width)."""
        return self.embed(series).mT + self.place

    def classify(self, mean: Tensor) -> Tensor:
        """The mean token (B, width), weighted by size -> logits (B, classes)."""
        return self.classifier(self.norm(mean))


class NeighbourMerging(Victim):
    """Tokens 2i and 2i + 1 become one, their mean by size, where their keys are alike.

    In every block of ``merging_blocks``, between attention and MLP: a pair whose keys, averaged
    over heads, have a cosine above the threshold merges. One gate for each, ``blocks.k.pairs``: a
    unit per pair, active where the two stay apart.

    Args:
        transformer: trained, with merging or without.
        domain: of the series.
        merging_blocks: 0-based indices.
        threshold: cosine in (-1, 1] beyond which a pair merges; 1 merges none.
        mean, std: normalisation per channel; identity by default.
        settings: ``data``.

    Raises:
        UsageError: for blocks that are not there, series of another size than the transformer's, or
            a threshold that is no cosine.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        transformer: PatchTransformer,
        domain: Series,
        *,
        merging_blocks: Iterable[int],
        threshold: float,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        name: str = "NeighbourMerging",
        **settings: Any,
    ) -> None:
        chosen, depth = tuple(sorted(set(merging_blocks))), len(transformer.blocks)
        if not chosen or not all(0 <= k < depth for k in chosen):
            raise UsageError(f"merging_blocks = {chosen} must name some of 0 to {depth - 1}")
        if domain.shape != (transformer.channels, transformer.length):
            raise UsageError(
                f"{name}: a transformer for {(transformer.channels, transformer.length)} in "
                f"Series{domain.shape}: give both the same channels and length"
            )
        if not -1 < threshold <= 1:
            raise UsageError(f"threshold = {threshold} is no cosine: use a value in (-1, 1]")
        super().__init__(
            name=name,
            family="token sparsification",
            domain=domain,
            num_classes=transformer.classifier.out_features,
            **settings,
        )
        self.transformer = transformer.eval()
        self.merging_blocks, self.threshold = chosen, float(threshold)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1), persistent=False)
        blocks: Any = transformer.blocks
        self._block_macs = tuple(BlockMacs(block) for block in blocks)
        all_stay = [float(transformer.tokens)] * (depth + 1)
        self.max_macs = self._macs(all_stay)
        self.dense_macs = self.max_macs - sum(
            transformer.tokens // 2 * block.attn.head_dim for k, block in self._merging()
        )

    def forward(self, series: Tensor) -> Tensor:
        x, layout = pack(self.transformer.tokenise((series - self.mean) / self.std))
        sizes = x.new_ones(len(x), 1)
        blocks: Any = self.transformer.blocks
        for k, block in enumerate(blocks):
            q, key, v = split_heads(block.attn, block.norm1(x))
            heads = layout.by_bucket(_attend, q * block.attn.scale, key, v, sizes.log())
            x = x + block.ls1(merge_heads(block.attn, heads))
            if k in self.merging_blocks:
                x, sizes, layout = self._merge(x, sizes, key.mean(1), layout)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        means = layout.by_bucket(_mean, x, sizes)
        order = torch.tensor(layout.images, device=x.device)
        return self.transformer.classify(means.new_empty(means.shape).index_copy(0, order, means))

    def _merge(
        self, x: Tensor, sizes: Tensor, keys: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor, Layout]:
        """Merged tokens leave: (T, width) -> (fewer, width), their sizes and where they stand."""
        joins = layout.by_bucket(self._joins, keys)
        joining = joins.nonzero()[:, 0]
        kept, layout = layout.keep(~joins)
        total = (x * sizes).index_add(0, joining - 1, (x * sizes)[joining])[kept]
        sizes = sizes.index_add(0, joining - 1, sizes[joining])[kept]
        return total / sizes, sizes, layout

    def _joins(self, keys: Tensor) -> Tensor:
        """(B, N, d) -> (B, N) bool: tokens that join the one before them."""
        alike = _likeness(keys) > self.threshold
        apart = torch.zeros_like(alike)
        joins = torch.stack([apart, alike], dim=2).flatten(1)
        return F.pad(joins, (0, keys.shape[1] - joins.shape[1]))

    def trace(self, series: Tensor) -> Trace:
        tokens = _Tokens.all_of(self.transformer.tokenise((series - self.mean) / self.std))
        gates, counts = [], [tokens.live.sum(1).double()]
        blocks: Any = self.transformer.blocks
        for k, block in enumerate(blocks):
            q, key, v = queries_keys_values(block.attn, block.norm1(tokens.x))
            bias = tokens.sizes.log()[..., 0].masked_fill(~tokens.live, -torch.inf)
            attention = (q @ key.mT + bias[:, None, None]).softmax(-1)
            x = tokens.x + block.ls1(project_heads(block.attn, attention @ v))
            tokens = tokens._replace(x=x)
            if k in self.merging_blocks:
                likeness = _likeness(key.mean(1))
                pairs = tokens.pairs()
                apart = pairs & (likeness <= self.threshold)
                gates.append(self._gate(k, likeness, apart, pairs))
                tokens = tokens.merged(pairs & ~apart)
            x = tokens.x
            tokens = tokens._replace(x=x + block.ls2(block.mlp(block.norm2(x))))
            counts.append(tokens.live.sum(1).double())
        weights = tokens.sizes * tokens.live[..., None]
        mean = (tokens.x * weights).sum(1) / weights.sum(1)
        return Trace(
            logits=self.transformer.classify(mean),
            gates=tuple(gates),
            macs=self._macs(counts),
            aux={"tokens": torch.stack(counts, dim=1)},
        )

    def _gate(self, k: int, likeness: Tensor, apart: Tensor, pairs: Tensor) -> Gate:
        here, later = self._block_macs[k], self._block_macs[k + 1 :]
        room = 2 * self.transformer.tokens
        return Gate(
            name=f"blocks.{k}.pairs",
            margin=bounded(self.threshold - likeness, max(1 - self.threshold, 1e-3)),
            active=apart,
            reached=pairs,
            cost=float(here.mlp_per_token + sum(m.per_token + room * m.inner for m in later)),
        )

    def _merging(self) -> list[tuple[int, Any]]:
        return [(k, self.transformer.blocks[k]) for k in self.merging_blocks]

    def _macs(self, counts: Sequence[Any]) -> Any:
        """MACs from the tokens before block 0 and after every block."""
        network = self.transformer
        total = network.embed.weight.numel() * network.tokens
        total = counts[0] * 0 + total + linear_macs(1, [network.classifier])
        for macs, before, after in zip(self._block_macs, counts, counts[1:], strict=False):
            total = total + macs.dense(before) - (before - after) * macs.mlp_per_token
        for k, block in self._merging():
            total = total + counts[k] // 2 * block.attn.head_dim
        return total


class _Tokens(NamedTuple):
    """Tokens of a batch in fixed shapes: live ones first, in their order."""

    x: Tensor
    """(B, N, width); dead rows mean nothing."""
    sizes: Tensor
    """(B, N, 1): how many patches each stands for."""
    live: Tensor
    """(B, N) bool."""

    @classmethod
    def all_of(cls, x: Tensor) -> _Tokens:
        return cls(x, x.new_ones(*x.shape[:2], 1), x.new_ones(x.shape[:2], dtype=torch.bool))

    def pairs(self) -> Tensor:
        """(B, N // 2) bool: tokens 2i and 2i + 1 are both live."""
        return self.live[:, 1::2]

    def merged(self, joins: Tensor) -> _Tokens:
        """Tokens 2i + 1 of the pairs (B, N // 2) bool in ``joins`` join tokens 2i."""
        count = 2 * joins.shape[1]
        weight = joins[..., None] * self.sizes[:, 1:count:2]
        first = self.sizes[:, :count:2]
        means = (first * self.x[:, :count:2] + weight * self.x[:, 1:count:2]) / (first + weight)
        x, sizes, live = self.x.clone(), self.sizes.clone(), self.live.clone()
        x[:, :count:2], sizes[:, :count:2] = means, first + weight
        live[:, 1:count:2] &= ~joins
        order = (~live).byte().argsort(dim=1, stable=True)
        return _Tokens(
            torch.take_along_dim(x, order[..., None], dim=1),
            torch.take_along_dim(sizes, order[..., None], dim=1),
            live.gather(1, order),
        )


def _likeness(keys: Tensor) -> Tensor:
    """(B, N, d) -> (B, N // 2): cosine of tokens 2i and 2i + 1."""
    keys = F.normalize(keys, dim=2)
    return torch.linalg.vecdot(keys[:, :-1:2], keys[:, 1::2])


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Proportional attention among equally many tokens: (B, N, heads, d), bias (B, N, 1)."""
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    bias = bias.mT[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0).transpose(1, 2)


def _mean(x: Tensor, sizes: Tensor) -> Tensor:
    """(B, N, width), weighted by sizes (B, N, 1) -> (B, 1, width)."""
    return (x * sizes).sum(1, keepdim=True) / sizes.sum(1, keepdim=True)
