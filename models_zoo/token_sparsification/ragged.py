"""Ragged batches: images that keep different numbers of tokens, run together.

The tokens of all images stand one after another in one tensor (T, width), without padding. What
works token by token (norms, linear layers) runs on all of them at once. What mixes the tokens of
an image (attention) runs on buckets of images with equally many tokens: images are kept in the
order of their token counts, so a bucket is a slice and nothing is copied. In half precision on
CUDA, where many small calls would cost more than they save, attention is one call of
``torch.nn.attention.varlen``.

A batch of one image is one bucket, on which a block runs as it stands: the path of a single image
is what the packed ones are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from typing import NamedTuple

import torch
from timm.models.vision_transformer import Attention, Block
from torch import Tensor
from torch.nn import functional as F

from effattack.counting.macs import register
from effattack.errors import UsageError


class Bucket(NamedTuple):
    """Neighbouring images with equally many tokens."""

    rows: slice
    """Their tokens."""
    images: tuple[int, ...]
    tokens: int
    """Of each image."""

    def of(self, tokens: Tensor) -> Tensor:
        """(T, ...) -> (images, tokens, ...), a view."""
        return tokens[self.rows].unflatten(0, (len(self.images), self.tokens))


class Layout(NamedTuple):
    """Which rows of a tensor (T, ...) belong to which image."""

    images: tuple[int, ...]
    """Places in the batch of the images that have tokens left, fewest tokens first."""
    counts: tuple[int, ...]
    """Tokens of each of them."""

    @classmethod
    def dense(cls, images: int, tokens: int) -> Layout:
        """Every image has all its tokens."""
        return cls(tuple(range(images)), (tokens,) * images)

    def buckets(self) -> Iterator[Bucket]:
        """In the order of the rows."""
        start = 0
        for tokens, group in groupby(zip(self.images, self.counts, strict=True), lambda at: at[1]):
            images = tuple(image for image, _ in group)
            end = start + tokens * len(images)
            yield Bucket(slice(start, end), images, tokens)
            start = end

    def by_bucket(self, function: Callable[..., Tensor], *tokens: Tensor) -> Tensor:
        """Tensors (T, ...) through a function of dense ones (images, tokens, ...)."""
        parts = [function(*map(bucket.of, tokens)).flatten(0, 1) for bucket in self.buckets()]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def firsts(self) -> list[int]:
        """Rows of the first token of each image, CLS, in the order of the batch."""
        starts = accumulate(self.counts, initial=0)
        return [start for _, start in sorted(zip(self.images, starts, strict=False))]

    def keep(self, kept: Tensor) -> tuple[Tensor, Layout]:
        """Drop tokens.

        Args:
            kept: (T,) bool. An image that keeps none is no longer in the layout.

        Returns:
            The rows that stay, in their new order, and where they stand then.
        """
        rows = kept.nonzero()[:, 0]
        if not len(rows):
            return rows, Layout((), ())
        if len(self.images) == 1:
            return rows, Layout(self.images, (len(rows),))
        rows = rows.cpu()
        bounds = torch.searchsorted(rows, torch.tensor(self.counts).cumsum(0)[:-1])
        pieces = zip(self.images, rows.tensor_split(bounds), strict=True)
        left = sorted((len(piece), image, piece) for image, piece in pieces if len(piece))
        rows = torch.cat([piece for _, _, piece in left]).to(kept.device)
        return rows, Layout(tuple(at[1] for at in left), tuple(at[0] for at in left))


def alike(choices: Tensor) -> Iterable[tuple[tuple[bool, ...], list[int]]]:
    """Choices (B, k) bool -> those that occur, and the images that made them."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for image, choice in enumerate(choices.tolist()):
        groups.setdefault(tuple(choice), []).append(image)
    return groups.items()


def pack(tokens: Tensor) -> tuple[Tensor, Layout]:
    """(B, N, width) -> the same tokens as (B N, width), and their layout."""
    return tokens.flatten(0, 1), Layout.dense(*tokens.shape[:2])


def split_heads(attn: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(T, width) -> queries, keys, values (T, heads, width / heads); nothing is scaled yet."""
    q, k, v = attn.qkv(x).unflatten(1, (3, attn.num_heads, attn.head_dim)).unbind(1)
    return attn.q_norm(q), attn.k_norm(k), v


def merge_heads(attn: Attention, heads: Tensor) -> Tensor:
    """(T, heads, width / heads) -> (T, width), through the output projection."""
    return attn.proj(attn.norm(heads.flatten(1)))


def ragged_block(block: Block, x: Tensor, layout: Layout) -> Tensor:
    """The block, (T, width) -> (T, width); as it stands where all images are of one bucket."""
    if len(set(layout.counts)) == 1:
        return layout.by_bucket(block, x)
    heads = attention(*split_heads(block.attn, block.norm1(x)), layout)
    x = x + block.ls1(merge_heads(block.attn, heads))
    return x + block.ls2(block.mlp(block.norm2(x)))


def attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """Softmax attention among the tokens of each image; all are (T, heads, d)."""
    half = q.dtype in (torch.float16, torch.bfloat16)
    if q.is_cuda and half and q.shape[2] % 8 == 0 and len(set(layout.counts)) > 1:
        return _varlen_attention(q, k, v, layout)
    return layout.by_bucket(_attention, q, k, v)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _varlen_attention(q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
    """One call for all images; the kernel exists in half precision only, from torch 2.10 on."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError as error:
        raise UsageError(
            f"torch {torch.__version__} has no torch.nn.attention.varlen, which ragged batches in "
            "half precision on CUDA need: use torch 2.10 or newer, float32, or a batch of one image"
        ) from error
    bounds = torch.tensor([0, *accumulate(layout.counts)], dtype=torch.int32, device=q.device)
    most = max(layout.counts)
    return varlen_attn(q, k, v, bounds, bounds, most, most)


def _varlen_macs(
    q: Tensor, k: Tensor, v: Tensor, bounds_q: Tensor, bounds_k: Tensor, *_: object, **__: object
) -> int:
    """Q Kᵀ and A V of every image by itself."""
    pairs = int((bounds_q.diff().long() * bounds_k.diff().long()).sum())
    return pairs * q.shape[1] * (q.shape[2] + v.shape[2])


register("torch_attn._varlen_attn", _varlen_macs)
