"""EViT: every image keeps the same number of tokens, those its CLS token attends to most.

Liang et al., "EViT: Expediting Vision Transformers via Token Reorganizations", ICLR 2022
(arXiv 2202.07800). A fixed-rate control: the MACs cannot depend on the input. The rule needs no
training, though the published models were trained with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.vit import (
    BlockMacs,
    ViTVictim,
    attention_map,
    project_heads,
    queries_keys_values,
    stem_and_head_macs,
)
from effattack.victim import Trace

FUSED = -1
"""Stands for a fused token where original patch indices are listed."""


class MostAttended:
    """The policy: of n tokens beside CLS, the ⌈rate · n⌉ with the largest CLS attention survive.

    A fused token of an earlier block competes like any other.
    """

    def __init__(self, keep_rates: Sequence[float]) -> None:
        self.keep_rates = tuple(keep_rates)

    def __repr__(self) -> str:
        return f"MostAttended(keep_rates={self.keep_rates})"

    def kept(self, block: int, others: int) -> int:
        """How many of ``others`` tokens beside CLS survive in a block."""
        return ceil(self.keep_rates[block] * others)

    def split(self, block: int, attention: Tensor) -> tuple[Tensor, Tensor]:
        """CLS attention (B, n) -> slots that survive, slots that do not; most attended first."""
        order = attention.argsort(dim=1, descending=True, stable=True)
        kept = self.kept(block, attention.shape[1])
        return order[:, :kept], order[:, kept:]


class EViT(ViTVictim):
    """A timm ViT that drops the least attended tokens between attention and MLP of some blocks.

    The attention of CLS is averaged over heads. With ``fuse``, the dropped tokens leave behind one
    token, their sum weighted by that attention; as in the official code the weights are not
    normalised. All images of a batch keep equally many tokens, so both paths are the same code.
    ``trace(...).aux`` lists, per block that drops, the original patch of every survivor
    (``"blocks.3.kept"``, (B, k); -1 is a fused token).

    Args:
        vit: any timm ``VisionTransformer`` with a CLS token.
        keep_rates: the share of tokens to keep, one per block; 1 keeps all.
        fuse: whether dropped tokens are fused into one.
        settings: ``name``, ``data``, ``mean``, ``std``.

    Raises:
        UsageError: for rates outside (0, 1], not one per block, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        keep_rates: Sequence[float],
        fuse: bool = True,
        name: str = "EViT",
        **settings: Any,
    ) -> None:
        super().__init__(
            vit,
            name=name,
            constant=True,
            **settings,
        )
        keep_rates = tuple(keep_rates)
        if len(keep_rates) != len(vit.blocks):
            raise UsageError(
                f"{len(keep_rates)} keep_rates for {len(vit.blocks)} blocks: give one for each, 1 "
                "where nothing is dropped"
            )
        if bad := [rate for rate in keep_rates if not 0 < rate <= 1]:
            raise UsageError(f"keep_rates {bad} are no shares: use values in (0, 1]")
        self.patches = vit.patch_embed.num_patches
        self.policy = MostAttended(keep_rates)
        self.fuse = fuse
        self.dense_macs = self._macs([self.patches + 1] * (len(keep_rates) + 1))
        self.max_macs = self._macs(self._tokens())

    def forward(self, images: Tensor) -> Tensor:
        return self._run(images)[0]

    def trace(self, images: Tensor) -> Trace:
        logits, kept_slots = self._run(images)
        origin = torch.arange(self.patches, device=images.device).expand(len(images), -1)
        aux = {}
        for index, slots in kept_slots.items():
            origin = origin.gather(1, slots)
            aux[f"blocks.{index}.kept"] = origin
            if self.fuse:
                origin = torch.cat([origin, torch.full_like(origin[:, :1], FUSED)], dim=1)
        macs = torch.full((len(images),), self.max_macs, dtype=torch.float64, device=images.device)
        return Trace(logits=logits, gates=(), macs=macs, aux=aux)

    def _run(self, images: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Logits, and the slots kept in every block that drops."""
        x = self.embed(images)
        kept_slots = {}
        for index, block in enumerate(self.vit.blocks):
            if self.policy.kept(index, x.shape[1] - 1) < x.shape[1] - 1:
                x, kept_slots[index] = self._drop(index, block, x)
            else:
                x = block(x)
        return self.classify(x), kept_slots

    def _drop(self, index: int, block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = queries_keys_values(block.attn, block.norm1(x))
        attention = attention_map(q, k)
        x = x + block.ls1(project_heads(block.attn, attention @ v))
        cls_attention = attention[:, :, 0, 1:].mean(1)
        kept, dropped = self.policy.split(index, cls_attention)
        parts = [x[:, :1], torch.take_along_dim(x[:, 1:], kept[..., None], dim=1)]
        if self.fuse:
            weights = cls_attention.gather(1, dropped)[..., None]
            others = torch.take_along_dim(x[:, 1:], dropped[..., None], dim=1)
            parts.append((weights * others).sum(1, keepdim=True))
        x = torch.cat(parts, dim=1)
        return x + block.ls2(block.mlp(block.norm2(x))), kept

    def _tokens(self) -> list[int]:
        """Tokens (CLS included) before block 0 and after every block."""
        counts = [self.patches + 1]
        for index in range(len(self.vit.blocks)):
            others = counts[-1] - 1
            kept = self.policy.kept(index, others)
            counts.append(1 + kept + (self.fuse and kept < others))
        return counts

    def _macs(self, tokens: list[int]) -> float:
        total = stem_and_head_macs(self.vit)
        blocks: Any = self.vit.blocks
        for block, before, after in zip(blocks, tokens, tokens[1:], strict=False):
            macs = BlockMacs(block)
            total += macs.dense(before) - (before - after) * macs.mlp_per_token
        return float(total)
