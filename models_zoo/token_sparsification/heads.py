"""Attention and MLP with some heads left out.

For images that keep the same heads really: rows and columns of the weights are sliced. For a batch
in fixed shapes: the heads are multiplied by 0. A dropped head either disappears with its channels,
from the attention and from the input of the MLP ("width"), or lets every token attend to itself
alone ("identity").
"""

from __future__ import annotations

import torch
from timm.layers import Mlp
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo.token_sparsification.ragged import (
    Layout,
    attention,
    merge_heads,
    split_heads,
)
from effattack.models_zoo.token_sparsification.vit import project_heads, queries_keys_values


def check_width(block: Block) -> None:
    """Refuse blocks whose heads are no slices of the width, through attention and MLP.

    Raises:
        UsageError: naming the reason and what else to use.
    """
    attn, mlp = block.attn, block.mlp
    unsupported = {
        "a normalisation after the attention": not isinstance(attn.norm, nn.Identity),
        "heads that do not partition the width": attn.proj.in_features != attn.qkv.in_features,
        f"an MLP of type {type(mlp).__name__}": not isinstance(mlp, Mlp),
    }
    if found := [feature for feature, present in unsupported.items() if present]:
        raise UsageError(
            f"this VisionTransformer has {', '.join(found)}: its heads cannot leave by width; use "
            "dropped_head='identity_attention' or heads=False"
        )


def sliced_attention(
    attn: Attention, x: Tensor, layout: Layout, heads: Tensor | None, *, identity: bool
) -> Tensor:
    """(T, C) -> (T, C) among the tokens of each image, with the heads of these indices.

    The bias of the output projection stays, also when no head does. None is all heads.
    """
    if heads is None:
        return merge_heads(attn, attention(*split_heads(attn, x), layout))
    if identity:
        everyone = torch.arange(attn.num_heads, device=x.device)
        (v,) = _project(attn, x, everyone, slice(2, 3))
        q, k = _project(attn, x, heads, slice(0, 2))
        v = v.index_copy(1, heads, _attend(attn, q, k, v.index_select(1, heads), layout))
        return merge_heads(attn, v)
    q, k, v = _project(attn, x, heads, slice(0, 3))
    weight = attn.proj.weight.index_select(1, _channels(heads, attn.head_dim))
    return F.linear(_attend(attn, q, k, v, layout).flatten(1), weight, attn.proj.bias)


def sliced_mlp(mlp: Mlp, x: Tensor, heads: Tensor | None, num_heads: int) -> Tensor:
    """The MLP (T, C) -> (T, C), reading only the channels of these heads; None is all heads."""
    if heads is None:
        return mlp(x)
    channels = _channels(heads, x.shape[1] // num_heads)
    hidden = F.linear(x.index_select(1, channels), mlp.fc1.weight[:, channels], mlp.fc1.bias)
    return mlp.fc2(mlp.norm(mlp.act(hidden)))


def masked_attention(
    attn: Attention, x: Tensor, live: Tensor, heads: Tensor, *, identity: bool
) -> Tensor:
    """(B, N, C) -> (B, N, C), among live tokens (B, N); rows of dead tokens mean nothing.

    A dead token attends to itself, so that every row of the softmax is finite. By width, factors
    apply to queries, keys, values and output alike: one would do for the value, but these give the
    straight-through gradient of the official code.

    Args:
        heads: (B, heads) factors 0 or 1.
    """
    q, k, v = queries_keys_values(attn, x)
    factor = heads[:, :, None, None]
    if not identity:
        q, k, v = q * factor, k * factor, v * factor
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    allowed = (live[:, :, None] & live[:, None, :]) | itself
    scores = (q @ k.transpose(-2, -1)).masked_fill(~allowed[:, None], float("-inf"))
    out = scores.softmax(dim=-1) @ v
    return project_heads(attn, out * factor + v * (1 - factor) if identity else out * factor)


def _channels(heads: Tensor, head_dim: int) -> Tensor:
    """Indices of heads -> indices of their channels."""
    return (heads[:, None] * head_dim + torch.arange(head_dim, device=heads.device)).flatten()


def _project(attn: Attention, x: Tensor, heads: Tensor, parts: slice) -> tuple[Tensor, ...]:
    """Queries, keys, values (parts 0, 1, 2) of some heads, each (T, heads, head_dim)."""
    shape = (3, attn.num_heads, attn.head_dim)
    weight = attn.qkv.weight.unflatten(0, shape)[parts].index_select(1, heads).flatten(0, 2)
    bias = attn.qkv.bias
    if bias is not None:
        bias = bias.unflatten(0, shape)[parts].index_select(1, heads).flatten()
    shape = (parts.stop - parts.start, len(heads), attn.head_dim)
    return F.linear(x, weight, bias).reshape(len(x), *shape).unbind(1)


def _attend(attn: Attention, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    return attention(attn.q_norm(q), attn.k_norm(k), v, layout) if q.shape[1] else v
