"""Official checkpoints: a timm ViT whose sizes follow from a state dict, loaded to the last key.

The published token mechanisms grew from timm and kept its names for the transformer itself, so one
builder serves them all; what a mechanism adds (predictors, gates) is loaded under its own prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from effattack.errors import UsageError

SIZING = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight", "head.weight")
"""The keys that the sizes are read from."""


def vit_from_official(state_dict: Mapping[str, Tensor], *, num_heads: int) -> VisionTransformer:
    """A timm ViT that holds exactly the weights of an official state dict.

    Args:
        state_dict: official names; nothing else may be in it.
        num_heads: of every block; it cannot be read off the weights.

    Raises:
        UsageError: listing the keys that are missing, surplus or of another shape.
    """
    vit = sized_vit(state_dict, num_heads=num_heads)
    load_official(state_dict, {"": vit})
    return vit


def sized_vit(state_dict: Mapping[str, Tensor], *, num_heads: int) -> VisionTransformer:
    """An untrained timm ViT of the sizes of a state dict: LayerNorm eps 1e-6, square images.

    Args:
        state_dict: official names; other keys are ignored.
        num_heads: of every block.

    Raises:
        UsageError: if the sizes cannot be read, or fit no ViT with a CLS token.
    """
    if missing := [key for key in SIZING if key not in state_dict]:
        raise UsageError(f"{_misfit(missing, [])}: the sizes of the ViT are read from these keys")
    width, channels, *patch = state_dict["patch_embed.proj.weight"].shape
    patches = state_dict["pos_embed"].shape[1] - 1
    side = isqrt(max(patches, 0))
    if side * side != patches:
        raise UsageError(
            f"pos_embed holds {patches + 1} positions, which is no CLS token and a square grid of "
            "patches: only plain ViTs (not distilled, square images) can be rebuilt"
        )
    if num_heads < 1 or width % num_heads:
        raise UsageError(f"num_heads = {num_heads} does not divide the width {width} of this model")
    hidden = state_dict["blocks.0.mlp.fc1.weight"].shape[0]
    return VisionTransformer(
        img_size=(side * patch[0], side * patch[1]),
        patch_size=(patch[0], patch[1]),
        in_chans=channels,
        num_classes=state_dict["head.weight"].shape[0],
        embed_dim=width,
        depth=_depth(state_dict),
        num_heads=num_heads,
        mlp_ratio=(hidden + 0.5) / width,
        qkv_bias=any(key.endswith(".attn.qkv.bias") for key in state_dict),
        weight_init="skip",
    )


def load_official(state_dict: Mapping[str, Tensor], modules: Mapping[str, nn.Module]) -> None:
    """Load every key of an official state dict into modules, none left over.

    The modules take the precision of the weights, single precision at least.

    Args:
        state_dict: official names.
        modules: prefix of the official names -> module; ``""`` for the transformer itself.

    Raises:
        UsageError: listing the keys that are missing, surplus or of another shape.
    """
    wanted = {
        p + name: t for p, module in modules.items() for name, t in module.state_dict().items()
    }
    missing = [key for key in wanted if key not in state_dict]
    surplus = [key for key in state_dict if key not in wanted]
    if missing or surplus:
        raise UsageError(
            f"{_misfit(missing, surplus)}: pass the plain state dict of the official model (often "
            "checkpoint['model']) and the settings it was built with"
        )
    if reshaped := [
        f"{key} {tuple(state_dict[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if state_dict[key].shape != tensor.shape
    ]:
        raise UsageError(
            f"the state dict does not fit: shapes of {', '.join(reshaped)}: its parts are not "
            "those of one model"
        )
    precision = torch.promote_types(next(iter(state_dict.values())).dtype, torch.float32)
    for prefix, module in modules.items():
        module.to(precision)
        module.load_state_dict({name: state_dict[prefix + name] for name in module.state_dict()})


def official_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the prefix that ``nn.DataParallel`` puts before every name."""
    wrapped = all(key.startswith("module.") for key in state_dict)
    return {key.removeprefix("module.") if wrapped else key: t for key, t in state_dict.items()}


def _depth(state_dict: Mapping[str, Tensor]) -> int:
    indices = (key.split(".")[1] for key in state_dict if key.startswith("blocks."))
    return 1 + max(int(index) for index in indices if index.isdecimal())


def _misfit(missing: list[str], surplus: list[str]) -> str:
    parts = [
        f"{kind} {', '.join(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus))
        if keys
    ]
    return f"the state dict does not fit: {'; '.join(parts)}"
