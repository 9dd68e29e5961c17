"""What every token mechanism shares: a stock timm VisionTransformer, opened at its seams.

A mechanism wraps the user's own timm model and keeps its weights, names and normalisation. The
functions here are the pieces of a transformer block that a mechanism needs one at a time, and the
MACs of those pieces as functions of the number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, Self

import torch
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Attention, Block, VisionTransformer
from torch import Tensor, nn

from effattack.counting.macs import linear_macs
from effattack.errors import UsageError
from effattack.models_zoo.official import vit_from_official
from effattack.victim import Victim


class ViTVictim(Victim):
    """A victim that wraps a timm ``VisionTransformer`` whose head reads the CLS token.

    A mechanism sets ``max_macs`` and ``dense_macs`` once its own settings are known.

    Args:
        vit: the model; put into eval mode.
        mean, std: normalisation per channel; by default that of timm's ``pretrained_cfg``.
        settings: the remaining arguments of :class:`effattack.victim.Victim`.

    Raises:
        UsageError: for a model that is no ViT or uses a feature that is not honoured here.
    """

    def __init__(
        self,
        vit: VisionTransformer,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **settings: Any,
    ) -> None:
        check_vit(vit)
        embed = vit.patch_embed
        channels = embed.proj.in_channels
        super().__init__(
            family="token sparsification",
            input_shape=(channels, *embed.img_size),
            num_classes=vit.num_classes,
            max_macs=nan,
            dense_macs=nan,
            **settings,
        )
        self.vit = vit.eval()
        config = getattr(vit, "pretrained_cfg", None) or {}
        mean = config.get("mean", (0.0,) * channels) if mean is None else mean
        std = config.get("std", (1.0,) * channels) if std is None else std
        if not {len(mean), len(std)} <= {1, channels} or min(std) <= 0:
            raise UsageError(
                f"mean = {mean}, std = {std} for images of {channels} channels: give mean= and "
                "std= with one number, or one per channel, the deviations above 0"
            )
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_official(
        cls, state_dict: Mapping[str, Tensor], *, num_heads: int, **settings: Any
    ) -> Self:
        """From the weights of the official implementation of the mechanism.

        Args:
            state_dict: official names; sizes follow from it.
            num_heads: of every block.
            settings: the arguments of the constructor; the normalisation is the identity unless
                ``mean`` and ``std`` are given.

        Raises:
            UsageError: listing missing and surplus keys.
        """
        return cls(vit_from_official(state_dict, num_heads=num_heads), **settings)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> tokens (B, N, width), CLS first."""
        images = (images - self.mean) / self.std
        return self.vit.norm_pre(self.vit._pos_embed(self.vit.patch_embed(images)))

    def classify(self, tokens: Tensor) -> Tensor:
        """Tokens after the last block -> logits; reads the CLS token."""
        return self.vit.forward_head(self.vit.norm(tokens[:, :1]))


def check_vit(vit: nn.Module) -> None:
    """Refuse models that a wrapper would compute wrongly.

    Raises:
        UsageError: naming the features.
    """
    if not isinstance(vit, VisionTransformer):
        raise UsageError(
            f"{type(vit).__name__} is no timm VisionTransformer: wrap a model such as "
            "timm.create_model('deit_small_patch16_224')"
        )
    if found := [feature for feature, present in _not_honoured(vit).items() if present]:
        raise UsageError(
            f"this VisionTransformer has {', '.join(found)}, which is not honoured here: use a "
            "plain one with a CLS token, such as vit_*, deit_* (not distilled)"
        )
    if vit.patch_embed.num_patches < 1:
        raise UsageError(
            f"an image of {vit.patch_embed.img_size} pixels has no patch token: use an image of at "
            f"least one patch, {vit.patch_embed.patch_size}"
        )


def _not_honoured(vit: VisionTransformer) -> dict[str, bool]:
    """What this model may have and a plain one has not -> whether it does."""
    embed, blocks = type(vit.patch_embed), list(vit.blocks)
    attns = [getattr(b, "attn", None) for b in blocks]
    standard = all(type(b) is Block and type(b.attn) is Attention for b in blocks)
    mlps = {type(getattr(b, "mlp", None)).__name__ for b in blocks} - {"Mlp", "GluMlp", "SwiGLU"}
    return {
        f"a patch embedding of type {embed.__name__}": embed is not PatchEmbed,
        "no CLS token": not vit.has_class_token,
        "a distillation token": hasattr(vit, "dist_token"),
        "register tokens": bool(getattr(vit, "num_reg_tokens", 0)),
        f"global_pool={vit.global_pool!r}": vit.global_pool != "token",
        "an attention pool": getattr(vit, "attn_pool", None) is not None,
        "no classifier": vit.num_classes < 1,
        "dynamic image size": getattr(vit, "dynamic_img_size", False),
        "a non-standard block": not standard,
        f"an MLP of type {', '.join(sorted(mlps))}": bool(mlps),
        "gated attention": any(getattr(attn, "gate", None) is not None for attn in attns),
    }


def queries_keys_values(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, N, C) -> three tensors (B, heads, N, C / heads); the queries are scaled."""
    batch, tokens, _ = x.shape
    qkv = attn.qkv(x).reshape(batch, tokens, 3, attn.num_heads, attn.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return attn.q_norm(q) * attn.scale, attn.k_norm(k), v


def attention_map(q: Tensor, k: Tensor, live: Tensor | None = None) -> Tensor:
    """Softmax attention (B, heads, N, N); keys outside ``live`` (B, N) get no attention."""
    scores = q @ k.transpose(-2, -1)
    if live is not None:
        scores = scores.masked_fill(~live[:, None, None, :], float("-inf"))
    return scores.softmax(dim=-1)


def project_heads(attn: Attention, heads: Tensor) -> Tensor:
    """(B, heads, N, C / heads) -> (B, N, C), through the output projection."""
    merged = heads.transpose(1, 2).flatten(2)
    return attn.proj(attn.norm(merged))


def with_cls(patches: Tensor) -> Tensor:
    """(B, patches), bool or factors -> (B, N): CLS in front, kept."""
    return torch.cat([torch.ones_like(patches[:, :1]), patches], dim=1)


def masked_block(block: Block, x: Tensor, live: Tensor) -> Tensor:
    """The stock block, attending to live tokens only; rows of dead tokens mean nothing."""
    q, k, v = queries_keys_values(block.attn, block.norm1(x))
    x = x + block.ls1(project_heads(block.attn, attention_map(q, k, live) @ v))
    return x + block.ls2(block.mlp(block.norm2(x)))


class BlockMacs:
    """MACs of the pieces of one block, for float tensors or numbers of tokens.

    With width C and MLP ratio 4: a dense block over N tokens is 12 N C² + 2 N² C.
    """

    def __init__(self, block: Block) -> None:
        self.width = block.attn.qkv.in_features
        self.inner = block.attn.num_heads * block.attn.head_dim
        self.qkv_per_token = self.width * block.attn.qkv.out_features
        self.proj_per_token = self.inner * self.width
        self.mlp_per_token = sum(
            m.in_features * m.out_features for m in block.mlp.modules() if isinstance(m, nn.Linear)
        )
        self.per_token = self.qkv_per_token + self.proj_per_token + self.mlp_per_token

    def dense(self, tokens: Any) -> Any:
        """All tokens through the whole block."""
        return tokens * self.per_token + 2 * tokens * tokens * self.inner

    def pruned_inside(self, tokens: Any, kept: Any) -> Any:
        """All tokens as keys and queries of the scores, kept tokens from A V onwards (ATS)."""
        scores = tokens * self.qkv_per_token + tokens * tokens * self.inner
        rest = kept * (tokens * self.inner + self.proj_per_token + self.mlp_per_token)
        return scores + rest


def stem_and_head_macs(vit: VisionTransformer) -> int:
    """MACs of the patch embedding and of the head, which no token mechanism saves."""
    kernel = vit.patch_embed.proj.weight.numel()
    head = linear_macs(1, (m for m in vit.head.modules() if isinstance(m, nn.Linear)))
    return kernel * vit.patch_embed.num_patches + head
