"""ToMe: in every block, the same number of most similar token pairs is merged.

Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023 (arXiv 2210.09461). A fixed-rate
control: the MACs cannot depend on the input. Training-free: any trained ViT can be wrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    project_heads,
    queries_keys_values,
    stem_and_head_macs,
)
from effattack.victim import Trace


class Merge(NamedTuple):
    """Which tokens of set A (even positions, CLS first) join which of set B (odd positions)."""

    unmerged: Tensor
    """(B, a - r) indices in A that stay, ascending."""
    source: Tensor
    """(B, r) indices in A that are merged, most similar first."""
    target: Tensor
    """(B, r) indices in B that they join."""

    def add(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T - r, C): unmerged tokens of A, then B with its sources added."""
        a, b = x[:, ::2], x[:, 1::2]
        joining = torch.take_along_dim(a, self.source[..., None], dim=1)
        b = b.scatter_add(1, self.target[..., None].expand_as(joining), joining)
        return torch.cat([torch.take_along_dim(a, self.unmerged[..., None], dim=1), b], dim=1)

    def destinations(self, tokens: int) -> Tensor:
        """(B, T): the slot after merging of each of T slots before."""
        batch, stay = self.unmerged.shape
        slots = torch.arange(tokens, device=self.unmerged.device).expand(batch, -1)
        moved = slots // 2 + stay
        moved = moved.scatter(1, 2 * self.unmerged, slots[:, :stay])
        return moved.scatter(1, 2 * self.source, self.target + stay)


class BipartiteMatching:
    """The policy: the r tokens of A whose nearest token in B is most similar join it.

    Similarity is the cosine between keys averaged over heads; CLS is never merged, and at most
    half of the other tokens are.
    """

    def __init__(self, r: Sequence[int]) -> None:
        self.r = tuple(r)

    def __repr__(self) -> str:
        return f"BipartiteMatching(r={self.r})"

    def merges(self, block: int, tokens: int) -> int:
        """How many of ``tokens`` tokens (CLS included) disappear in a block."""
        return min(self.r[block], (tokens - 1) // 2)

    def match(self, block: int, metric: Tensor) -> Merge:
        """Keys (B, T, d) -> what is merged."""
        merges = self.merges(block, metric.shape[1])
        metric = metric / metric.norm(dim=2, keepdim=True)
        similarity = metric[:, ::2] @ metric[:, 1::2].transpose(1, 2)
        best, nearest = similarity.max(2)
        best[:, 0] = float("-inf")
        order = best.argsort(dim=1, descending=True, stable=True)
        source = order[:, :merges]
        return Merge(order[:, merges:].sort(dim=1).values, source, nearest.gather(1, source))


class ToMe(ViTVictim):
    """A timm ViT that merges tokens between attention and MLP of its blocks.

    A merged token is the mean of its originals, weighted by how many original tokens each stands
    for; with proportional attention the logarithm of that size is added to the attention scores.
    All images of a batch merge equally many tokens, so both paths are the same code. No gradient
    passes through the matching. ``trace(...).aux`` tells, per block that merges, in which token
    every original one ended (``"blocks.3.group"``, (B, N), CLS included).

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token.
        r: tokens to merge in each block, at most half of those beside CLS; one number for all
            blocks, or one per block.
        proportional_attention: whether attention knows the sizes.
        settings: ``name``, ``data``, ``mean``, ``std``.

    Raises:
        UsageError: for negative r, not one per block, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        r: int | Sequence[int],
        proportional_attention: bool = True,
        name: str = "ToMe",
        **settings: Any,
    ) -> None:
        super().__init__(
            vit,
            name=name,
            constant=True,
            **settings,
        )
        schedule = tuple(r) if isinstance(r, Iterable) else (r,) * len(vit.blocks)
        if len(schedule) != len(vit.blocks):
            raise UsageError(
                f"r = {schedule} for {len(vit.blocks)} blocks: give one number for all, or one each"
            )
        if bad := [merges for merges in schedule if merges < 0 or merges != int(merges)]:
            raise UsageError(f"r = {bad} are no numbers of tokens: use integers from 0 on")
        self.tokens = vit.patch_embed.num_patches + 1
        self.policy = BipartiteMatching([int(merges) for merges in schedule])
        self.proportional_attention = proportional_attention
        self.dense_macs = self._macs(merging=False)
        self.max_macs = self._macs(merging=True)

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)[0]

    def trace(self, images: Tensor) -> Trace:
        logits, merged = self._run(images)
        group = torch.arange(self.tokens, device=images.device).expand(len(images), -1)
        tokens = self.tokens
        aux = {}
        for index, merge in merged.items():
            group = merge.destinations(tokens).gather(1, group)
            tokens -= merge.source.shape[1]
            aux[f"blocks.{index}.group"] = group
        macs = torch.full((len(images),), self.max_macs, dtype=torch.float64, device=images.device)
        return Trace(logits=logits, gates=(), macs=macs, aux=aux)

    def _run(self, images: Tensor) -> tuple[Tensor, dict[int, Merge]]:
        """Logits, and what was merged in every block that merges."""
        x = self.embed(images)
        sizes = x.new_ones(*x.shape[:2], 1)
        merged = {}
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            x, keys = self._attend(block, x, sizes)
            if self.policy.merges(index, x.shape[1]):
                merged[index] = merge = self.policy.match(index, keys.detach())
                x, sizes = merge.add(x * sizes), merge.add(sizes)
                x = x / sizes
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return self.classify(x), merged

    def _attend(self, block: Any, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """The attention half of a block, and its keys averaged over heads (B, T, d)."""
        q, k, v = queries_keys_values(block.attn, block.norm1(x))
        bias = sizes.log().mT[:, None] if self.proportional_attention else None
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return x + block.ls1(project_heads(block.attn, heads)), k.mean(1)

    def _macs(self, merging: bool) -> float:
        total, tokens = stem_and_head_macs(self.vit), self.tokens
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            macs = BlockMacs(block)
            total += macs.dense(tokens)
            if merging and (merges := self.policy.merges(index, tokens)):
                total += (tokens // 2) * (tokens - tokens // 2) * block.attn.head_dim
                total -= merges * macs.mlp_per_token
                tokens -= merges
        return float(total)
