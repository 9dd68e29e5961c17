"""Early exits on a stock timm ViT: classifiers on the CLS token after chosen blocks.

The recipe of DeeBERT (Xin et al., ACL 2020, arXiv 2004.12993) on a vision transformer; see LGViT
(Xu et al., ACM MM 2023, arXiv 2308.00255) for stronger heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.token_sparsification.vit import check_vit


class ExitViT(EarlyExit):
    """Any timm ViT with a CLS token; its own head is the final classifier.

    Args:
        vit: the model; it keeps its weights and names, under ``vit``.
        exit_blocks: 0-based indices of the blocks followed by a classifier; not the last block.
        criterion: when to leave; a number is a confidence threshold.
        exit_heads: one classifier (B, width) -> (B, classes) per exit; by default LayerNorm and a
            linear layer, untrained.
        mean, std: normalisation per channel; by default that of timm's ``pretrained_cfg``.
        settings: ``data``.

    Raises:
        UsageError: for blocks that cannot have an exit, or a model that cannot be wrapped.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        exit_blocks: Iterable[int],
        criterion: float | Sequence[float] | Criterion,
        exit_heads: Sequence[nn.Module] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        name: str = "ExitViT",
        **settings: Any,
    ) -> None:
        check_vit(vit)
        depth = len(vit.blocks)
        exits = tuple(sorted(set(exit_blocks)))
        if not exits or not all(0 <= b < depth - 1 for b in exits):
            raise UsageError(
                f"exit_blocks = {exits} must name some of the blocks 0 to {depth - 2}: after "
                "the last one stands the model's own head"
            )
        if exit_heads is None:
            exit_heads = [cls_head(vit) for _ in exits]
        bounds = pairwise((0, *(b + 1 for b in exits), depth))
        config = getattr(vit, "pretrained_cfg", None) or {}
        super().__init__(
            [_Segment(vit, first, end) for first, end in bounds],
            [*(_OnCLS(head) for head in exit_heads), _OwnHead(vit)],
            criterion,
            (vit.patch_embed.proj.in_channels, *vit.patch_embed.img_size),
            mean=config.get("mean") if mean is None else mean,
            std=config.get("std") if std is None else std,
            name=name,
            **settings,
        )
        self.vit = vit.eval()
        self.exit_blocks = exits


def cls_head(vit: VisionTransformer) -> nn.Sequential:
    """LayerNorm and a linear layer for the classes of the model."""
    return nn.Sequential(
        nn.LayerNorm(vit.embed_dim, eps=1e-6), nn.Linear(vit.embed_dim, vit.num_classes)
    )


class _OnCLS(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(tokens[:, 0])


class _PartOfViT(nn.Module):
    """Borrows the ViT: only the victim registers it, so that no weight has two names."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self._borrowed = (vit,)

    @property
    def vit(self) -> VisionTransformer:
        return self._borrowed[0]


class _Segment(_PartOfViT):
    """Some blocks in a row; the embedding comes before the first one."""

    def __init__(self, vit: VisionTransformer, first: int, end: int) -> None:
        super().__init__(vit)
        self.first, self.end = first, end

    def forward(self, x: Tensor) -> Tensor:
        if self.first == 0:
            x = self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(x)))
        for block in self.vit.blocks[self.first : self.end]:
            x = block(x)
        return x


class _OwnHead(_PartOfViT):
    def forward(self, tokens: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(tokens[:, :1]))
