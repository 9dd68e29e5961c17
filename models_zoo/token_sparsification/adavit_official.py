"""The official weights of AdaViT, whose attention keeps queries, keys and values apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.models_zoo.official import load_official, sized_vit
from effattack.models_zoo.token_sparsification.adavit_policy import BlockPolicy


def sized_adavit(state_dict: Mapping[str, Tensor], *, num_heads: int) -> VisionTransformer:
    """An untrained timm ViT of the sizes of an official AdaViT state dict.

    Raises:
        UsageError: if the sizes cannot be read.
    """
    sizing = dict(state_dict)
    if "blocks.0.attn.query.bias" in sizing:
        sizing["blocks.0.attn.qkv.bias"] = sizing["blocks.0.attn.query.bias"]
    return sized_vit(sizing, num_heads=num_heads)


def load_adavit(
    state_dict: Mapping[str, Tensor],
    vit: VisionTransformer,
    policies: Sequence[BlockPolicy],
    *,
    heads: bool,
    layers: bool,
) -> None:
    """Load every key, none left over; policies that are switched off may be in it, unused.

    Raises:
        UsageError: listing the keys that are missing, surplus or of another shape.
    """
    unused = [name for name, used in (("head", heads), ("layer", layers)) if not used]
    ignored = re.compile(rf"blocks\.\d+\.({'|'.join(unused)})_select\.mlp_head\.(weight|bias)")
    wanted = {k: t for k, t in state_dict.items() if not (unused and ignored.fullmatch(k))}
    embeddings = nn.ParameterDict({"cls_token": vit.cls_token, "pos_embed": vit.pos_embed})
    modules: dict[str, nn.Module] = {"": embeddings}
    modules |= {f"{name}.": vit.get_submodule(name) for name in ("patch_embed", "norm", "head")}
    projections = []
    for index, policy in enumerate(policies):
        prefix = f"blocks.{index}."
        for name in ("norm1", "norm2", "mlp", "attn.proj"):
            modules[f"{prefix}{name}."] = vit.get_submodule(prefix + name)
        qkv = vit.get_submodule(f"{prefix}attn.qkv")
        parts = [nn.Linear(vit.embed_dim, vit.embed_dim, qkv.bias is not None) for _ in range(3)]
        for name, part in zip(("query", "key", "value"), parts, strict=True):
            modules[f"{prefix}attn.{name}."] = part
        projections.append((qkv, parts))
        modules[f"{prefix}attn.token_select.mlp_head."] = policy.token_select
        if policy.head_select is not None:
            modules[f"{prefix}head_select.mlp_head."] = policy.head_select
        if policy.layer_select is not None:
            modules[f"{prefix}layer_select.mlp_head."] = policy.layer_select
    load_official(wanted, modules)
    for qkv, parts in projections:
        qkv.to(parts[0].weight.dtype)
        joined = [
            torch.cat(tensors) for tensors in zip(*(p.parameters() for p in parts), strict=True)
        ]
        for parameter, tensor in zip(qkv.parameters(), joined, strict=True):
            parameter.data.copy_(tensor)
