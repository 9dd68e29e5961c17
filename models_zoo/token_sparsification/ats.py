"""Adaptive Token Sampling (ATS): each image keeps the tokens its CLS attention samples.

Fayyaz et al., "Adaptive Token Sampling for Efficient Vision Transformers", ECCV 2022
(arXiv 2111.15667). Parameter-free: any trained ViT can be wrapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.ragged import (
    Layout,
    merge_heads,
    pack,
    ragged_block,
    split_heads,
)
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    attention_map,
    masked_block,
    project_heads,
    queries_keys_values,
    stem_and_head_macs,
    with_cls,
)
from effattack.victim import Gate, Trace


class InverseTransformSampling:
    """The policy: which patch tokens survive, given their significance scores.

    The scores are sorted, summed to a CDF, and read off at ``reference_tokens`` - 1 evenly spaced
    points; every point keeps its nearest token, duplicates are not replaced. As in the official
    code the grid starts at the smallest non-zero value of the min-max normalised CDF, so the least
    significant token never survives. Only live tokens take part: the official batched code lets
    padding shift the CDF, which makes a sample depend on its batch mates; that is not reproduced.
    """

    def __init__(self, reference_tokens: int) -> None:
        self.points = reference_tokens - 1

    def __repr__(self) -> str:
        return f"InverseTransformSampling(reference_tokens={self.points + 1})"

    def keep(self, scores: Tensor, live: Tensor) -> Tensor:
        """Scores (B, n) and live (B, n) bool -> (B, n) bool, at least one kept per row."""
        order = scores.masked_fill(~live, float("inf")).argsort(dim=1, stable=True)
        ranked_live = live.gather(1, order)
        cdf = scores.gather(1, order).masked_fill(~ranked_live, 0).cumsum(1)
        low, high = cdf[:, :1], cdf[:, -1:]
        cdf = (cdf - low) / (high - low).clamp_min(torch.finfo(cdf.dtype).tiny)
        start = cdf.masked_fill(cdf <= 0, 1).amin(1, keepdim=True)
        grid = torch.linspace(0, 1, self.points, dtype=cdf.dtype, device=cdf.device)
        points = start + (1 - start) * grid
        cdf = cdf.masked_fill(~ranked_live, float("inf"))
        nearest = (points[:, :, None] - cdf[:, None, :]).abs().argmin(2)
        picked = torch.zeros_like(live).scatter(1, nearest, True)
        return torch.zeros_like(live).scatter(1, order, picked)

    def most(self, patches: int) -> int:
        """The largest number of patch tokens that can survive of ``patches``."""
        return max(1, min(patches - 1, self.points))


class Sampling(NamedTuple):
    """What one block that samples did in the deployed path."""

    layout: Layout
    """Of the tokens that it was given."""
    scores: list[Tensor]
    """Per bucket: significance (images, n) of the patch tokens left, n of each image."""
    kept: list[Tensor]
    """Per bucket: the decision (images, n) bool."""


class ATS(ViTVictim):
    """A timm ViT that samples its tokens inside the attention of some blocks.

    Scores are CLS attention summed over heads times the norm of the value vector. ``forward``
    gathers the kept tokens of each image; batches run packed (``ragged.py``). The gate of a block
    has one unit per patch token and the proxy margin (K - 1) s - 1, clipped to [-1, 1]: the
    expected number of grid points that fall on the token, minus one.

    The trace's ``aux`` holds, of the blocks that sample and 0 where a token is dead:
    ``significance`` (B, blocks, patches), and ``cls_attention`` (B, blocks, heads, patches), the
    attention of CLS to the patches.

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token.
        ats_blocks: 0-based indices of the blocks that sample.
        reference_tokens: K, the cap on tokens including CLS; the grid has K - 1 points. Default:
            the number of tokens of the model.
        settings: ``name``, ``data``, ``mean``, ``std``.

    Raises:
        UsageError: for blocks that do not exist, K below 2, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        ats_blocks: Iterable[int],
        reference_tokens: int | None = None,
        name: str = "ATS",
        **settings: Any,
    ) -> None:
        super().__init__(
            vit,
            name=name,
            **settings,
        )
        depth = len(vit.blocks)
        self.ats_blocks = tuple(sorted(set(ats_blocks)))
        if not self.ats_blocks or not all(0 <= b < depth for b in self.ats_blocks):
            raise UsageError(
                f"ats_blocks = {self.ats_blocks} must name some of the blocks 0 to {depth - 1}"
            )
        self.tokens = vit.patch_embed.num_patches + 1
        reference_tokens = self.tokens if reference_tokens is None else reference_tokens
        if reference_tokens < 2 or self.tokens < 3:
            raise UsageError(
                f"reference_tokens = {reference_tokens} over {self.tokens} tokens leaves no patch "
                "token: use K >= 2 and an image of at least two patches"
            )
        self.policy = InverseTransformSampling(reference_tokens)
        blocks: Any = vit.blocks
        self._block_macs = tuple(BlockMacs(block) for block in blocks)
        self._fixed_macs = stem_and_head_macs(vit)
        self.dense_macs = float(self._macs([self.tokens] * (depth + 1)))
        self.max_macs = float(self._macs(self._most_tokens()))

    @classmethod
    def from_official(cls, state_dict: Mapping[str, Tensor], **settings: Any) -> Self:
        """As :meth:`ViTVictim.from_official`; the constant ``out_zero_mask`` entries are dropped.

        Each image is sampled by itself, as the official code does at batch 1 with DROP_TOKENS.
        """
        weights = {k: v for k, v in state_dict.items() if not k.endswith(".attn.out_zero_mask")}
        return super().from_official(weights, **settings)

    def forward(self, images: Tensor) -> Tensor:
        return self.deployed(images)[0]

    def deployed(self, images: Tensor) -> tuple[Tensor, list[Sampling]]:
        """What ``forward`` says, and what every block that samples did on the way."""
        x, layout = pack(self.embed(images))
        samplings = []
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            if index in self.ats_blocks:
                x, layout, sampling = self._sample(index, block, x, layout)
                samplings.append(sampling)
            else:
                x = ragged_block(block, x, layout)
        return self.classify(x[layout.firsts(), None]), samplings

    def _sample(
        self, index: int, block: Any, x: Tensor, layout: Layout
    ) -> tuple[Tensor, Layout, Sampling]:
        """One block, whose attention is computed for all tokens, its output for those kept."""
        heads, kept, sampling = {}, [], Sampling(layout, [], [])
        qkv = split_heads(block.attn, block.norm1(x))
        for bucket in layout.buckets():
            q, k, v = (bucket.of(part).transpose(1, 2) for part in qkv)
            attention = attention_map(q * block.attn.scale, k)
            scores = significance(attention, v)
            live = torch.ones_like(scores, dtype=torch.bool)
            patches = self.keep(index, scores.detach(), live)
            sampling.scores.append(scores)
            sampling.kept.append(patches)
            keep = with_cls(patches)
            kept.append(keep.flatten())
            for at, image in enumerate(bucket.images):
                rows = keep[at].nonzero()[:, 0]
                heads[image] = (attention[at].index_select(1, rows) @ v[at]).transpose(0, 1)
        rows, layout = layout.keep(torch.cat(kept))
        update = merge_heads(block.attn, torch.cat([heads[image] for image in layout.images]))
        x = x.index_select(0, rows) + block.ls1(update)
        return x + block.ls2(block.mlp(block.norm2(x))), layout, sampling

    def trace(self, images: Tensor) -> Trace:
        x = self.embed(images)
        live = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        gates, all_scores, cls_rows, counts = [], [], [], [live.sum(1).double()]
        blocks: Any = self.vit.blocks
        for index, block in enumerate(blocks):
            if index in self.ats_blocks:
                q, k, v = queries_keys_values(block.attn, block.norm1(x))
                attention = attention_map(q, k, live)
                scores = significance(attention, v, live[:, 1:])
                kept = self.keep(index, scores.detach(), live[:, 1:])
                gates.append(
                    Gate(
                        name=f"blocks.{index}.tokens",
                        margin=(self.policy.points * scores - 1).clamp(-1, 1),
                        active=kept,
                        reached=live[:, 1:],
                        cost=self._cost_to_go(index),
                        proxy=True,
                    )
                )
                all_scores.append(scores)
                cls_rows.append(attention[:, :, 0, 1:])
                x = x + block.ls1(project_heads(block.attn, attention @ v))
                x = x + block.ls2(block.mlp(block.norm2(x)))
                live = torch.cat([live[:, :1], kept], dim=1)
            else:
                x = masked_block(block, x, live)
            counts.append(live.sum(1).double())
        return Trace(
            logits=self.classify(x),
            gates=tuple(gates),
            macs=self._macs(counts),
            aux={
                "significance": torch.stack(all_scores, dim=1),
                "cls_attention": torch.stack(cls_rows, dim=1),
            },
        )

    def keep(self, index: int, scores: Tensor, live: Tensor) -> Tensor:
        """What block ``index`` keeps: scores (B, n) and live (B, n) bool -> (B, n) bool."""
        return self.policy.keep(scores, live)

    def most(self, index: int, patches: int) -> int:
        """The largest number of patch tokens that block ``index`` keeps of ``patches``."""
        return self.policy.most(patches)

    def _macs(self, counts: list[Any]) -> Any:
        """MACs from the tokens (CLS included) before block 0 and after every block."""
        total = counts[0] * 0 + self._fixed_macs
        for index, macs in enumerate(self._block_macs):
            if index in self.ats_blocks:
                total = total + macs.pruned_inside(counts[index], counts[index + 1])
            else:
                total = total + macs.dense(counts[index])
        return total

    def _most_tokens(self) -> list[int]:
        counts = [self.tokens]
        for index in range(len(self.vit.blocks)):
            samples = index in self.ats_blocks
            counts.append(1 + self.most(index, counts[-1] - 1) if samples else counts[-1])
        return counts

    def _cost_to_go(self, index: int) -> float:
        """MACs of one token from the rest of block ``index`` to the last block."""
        here, later = self._block_macs[index], self._block_macs[index + 1 :]
        rest = here.proj_per_token + here.mlp_per_token + self.tokens * here.inner
        return float(rest + sum(m.per_token + 2 * self.tokens * m.inner for m in later))


def significance(attention: Tensor, v: Tensor, live: Tensor | None = None) -> Tensor:
    """S_j of the patch tokens (B, n): CLS attention summed over heads times ‖V_j‖, normalised.

    Args:
        attention: (B, heads, N, N).
        v: (B, heads, N, d).
        live: (B, n) bool; dead tokens score 0.
    """
    norms = v.transpose(1, 2).flatten(2).norm(dim=2)
    scores = (attention[:, :, 0].sum(1) * norms)[:, 1:]
    if live is not None:
        scores = scores * live
    return scores / scores.sum(1, keepdim=True)
