"""What operators cost: formulas, and the table of operators that multiply and sum.

Formulas count what is stored: a sparse operand costs its stored values, a nested one its own
lengths. A complex multiplication is four real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor

Formula = Callable[..., int]
"""``formula(*args, out=result, **kwargs) -> int``: the MACs of one call of an operator."""

COMPRESSED = (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


def stored(t: Tensor) -> int:
    """Elements that a tensor stores: all of a dense one, the blocks of a sparse one."""
    if t.layout is torch.sparse_coo:
        return t._values().numel()
    return t.values().numel() if t.layout in COMPRESSED or t.layout is torch.jagged else t.numel()


def _real(t: Tensor) -> int:
    """Real multiplications in one of this type."""
    return 4 if t.is_complex() else 1


def _rows(x: Tensor) -> int:
    """Vectors along the last dimension."""
    return stored(x) // x.size(-1) if x.size(-1) else prod(x.shape[:-1])


def _is_sparse(t: Tensor) -> bool:
    return t.layout is torch.sparse_coo or t.layout in COMPRESSED


def _matmul(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """(..., n, k) @ (..., k, m): every stored element of ``a`` meets ``m`` columns.

    Of a sparse ``b``, every stored element meets the ``n`` rows; of two sparse ones, what stands
    in column k of ``a`` meets what stands in row k of ``b``.
    """
    if not _is_sparse(b):
        return stored(a) * b.shape[-1] * _real(a)
    if not _is_sparse(a):
        return stored(b) * _rows(a) * _real(a)
    columns, rows = _places(a)[-1], _places(b)[-2]
    met = columns.bincount(minlength=a.shape[-1]) * rows.bincount(minlength=a.shape[-1])
    return int(met.sum()) * _real(a)


def _product(a: Tensor, b: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """``aten.matmul``, which torch hands over whole where it is nested, or in inference mode."""
    if a.is_nested:
        return sum(_product(x, y, out=z) for x, y, z in zip(a, b, out, strict=True))
    if not (_is_sparse(a) or _is_sparse(b)):
        return out.numel() * a.shape[-1] * _real(a)
    if b.dim() == 1 or a.dim() == 1:
        return _vectors(a if b.dim() == 1 else b)
    return _matmul(a, b)


def _places(t: Tensor) -> Tensor:
    """(dimensions, nnz): where the stored values of a sparse matrix stand."""
    return (t if t.layout is torch.sparse_coo else t.to_sparse_coo())._indices()


def _vectors(a: Tensor, *_: Any, **__: Any) -> int:
    """A matrix or a vector by a vector."""
    return stored(a) * _real(a)


def _after(formula: Formula) -> Formula:
    """The formula of a product to which the first argument is added."""
    return lambda bias, *args, **kwargs: formula(*args, **kwargs)


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return _rows(x) * stored(weight) * _real(x)


def _packed_linear(x: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """Linear layers whose weight is an opaque packed object: (..., k) -> (..., m)."""
    return x.numel() * out.shape[-1]


def _sampled(add: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """A product computed only where ``add`` stores something."""
    return stored(add) * a.shape[-1] * _real(a)


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool = False,
    *_: Any,
    out: Tensor,
    **__: Any,
) -> int:
    """Each output element (input element, if transposed) meets one filter: weight.numel() / C."""
    return (x if transposed else out).numel() * prod(weight.shape[1:]) * _real(x)


def _deformed(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """``torchvision.ops.deform_conv2d``: as a convolution; where it looks is interpolated."""
    return out.numel() * prod(weight.shape[1:])


def _convolution_over_time(x: Tensor, weight: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """``aten.conv_tbc``: filters are (kernel, channels, out)."""
    return out.numel() * prod(weight.shape[:2])


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Q Kᵀ and A V: (B, h, n, d), (B, h, m, d), (B, h, m, e)."""
    batch_heads_queries = prod(query.shape[:-1])
    return batch_heads_queries * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _longest(x: Tensor) -> int:
    """Tokens of a batch (B, n, width), after padding if it is nested."""
    return int(x._nested_tensor_size()[:, 0].max()) if x.is_nested else x.shape[1]


def _fused_multihead(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, *_: Any, **__: Any
) -> int:
    """``aten._native_multi_head_attention``: in-projection, attention, out-projection.

    Nested batches are projected as they are and padded for the attention.
    """
    n, m = query.numel() // embed_dim, key.numel() // embed_dim
    scores = query.size(0) * _longest(query) * _longest(key) * 2 * embed_dim
    return embed_dim * embed_dim * (2 * n + 2 * m) + scores


def _fused_encoder_layer(src: Tensor, embed_dim: int, num_heads: int, *rest: Any, **__: Any) -> int:
    """``aten._transformer_encoder_layer_fwd``: multi-head attention and the two-layer MLP."""
    tokens = src.numel() // embed_dim
    hidden = next(t.shape[0] for t in rest[11:] if isinstance(t, Tensor) and t.dim() == 2)
    return _fused_multihead(src, src, src, embed_dim) + 2 * tokens * embed_dim * hidden


def _rnn_layer(x: Tensor, *weights: Any, **__: Any) -> int:
    """``aten.mkldnn_rnn_layer``: every step meets the input and the recurrent weights."""
    return x[..., 0].numel() * sum(w.numel() for w in weights[:2])


def _cudnn_rnn(x: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    """``aten._cudnn_rnn``: the same over all layers, directions and projections at once."""
    return x[..., 0].numel() * sum(w.numel() for w in weights if w.dim() == 2)


def _bag(weight: Tensor, indices: Tensor, *rest: Any, **kwargs: Any) -> int:
    """``aten._embedding_bag``: rows times ``per_sample_weights`` (free without), summed."""
    weights = rest[4] if len(rest) > 4 else kwargs.get("per_sample_weights")
    return 0 if weights is None else indices.numel() * weight.shape[1]


def _distances(a: Tensor, b: Tensor, p: float = 2.0, *_: Any, out: Tensor, **__: Any) -> int:
    """``torch.cdist``: each pair meets its features; sums of absolute values multiply nothing."""
    return out.numel() * a.shape[-1] if p not in (0, 1, float("inf")) else 0


def _own_distances(a: Tensor, p: float = 2.0, *_: Any, out: Tensor, **__: Any) -> int:
    return _distances(a, a, p, out=out)


def _bilinear(a: Tensor, weight: Tensor, b: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """``aten._trilinear`` as ``F.bilinear`` calls it: x₁ W for each output, then times x₂."""
    return out.numel() * b.shape[-1] * (a.shape[-1] + 1)


def _grid(theta: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """``aten.affine_grid_generator``: a row of ``theta`` for each coordinate."""
    return out.numel() * theta.shape[-1]


COSTS: dict[str, Formula] = {
    "aten.matmul": _product,
    "aten.mm": _matmul,
    "aten.bmm": _matmul,
    "aten.mv": _vectors,
    "aten.dot": _vectors,
    "aten.vdot": _vectors,
    "aten.addmm": _after(_matmul),
    "aten.baddbmm": _after(_matmul),
    "aten.addbmm": _after(_matmul),
    "aten.addmv": _after(_vectors),
    "aten._addmm_activation": _after(_matmul),
    "aten._int_mm": _matmul,
    "aten._scaled_mm": _matmul,
    "aten.linear": _linear,
    "aten.mkldnn_linear": _linear,
    "aten._weight_int8pack_mm": _linear,
    "aten._weight_int4pack_mm": _packed_linear,
    "aten._weight_int4pack_mm_for_cpu": _packed_linear,
    "aten._sparse_mm": _matmul,
    "aten._sparse_sparse_matmul": _matmul,
    "aten._sparse_mm_reduce_impl": _matmul,
    "aten._sparse_addmm": _after(_matmul),
    "aten.hspmm": _matmul,
    "aten.sspaddmm": _after(_matmul),
    "aten.sparse_sampled_addmm": _sampled,
    "aten.convolution": _convolution,
    "aten._convolution": _convolution,
    "aten.mkldnn_convolution": _convolution,
    "aten.cudnn_convolution": _convolution,
    "aten.convolution_overrideable": _convolution,
    "torchvision.deform_conv2d": _deformed,
    "aten.conv_tbc": _convolution_over_time,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "flex_attention": _attention,
    "aten._native_multi_head_attention": _fused_multihead,
    "aten._transformer_encoder_layer_fwd": _fused_encoder_layer,
    "aten.mkldnn_rnn_layer": _rnn_layer,
    "aten._cudnn_rnn": _cudnn_rnn,
    "aten._embedding_bag": _bag,
    "aten._embedding_bag_forward_only": _bag,
    "aten._cdist_forward": _distances,
    "aten._euclidean_dist": _distances,
    "aten._pdist_forward": _own_distances,
    "aten._trilinear": _bilinear,
    "aten.affine_grid_generator": _grid,
    "quantized.linear_dynamic": _packed_linear,
    "quantized.linear_relu_dynamic": _packed_linear,
    "quantized.linear": _packed_linear,
    "quantized.linear_relu": _packed_linear,
}
"""Operator -> formula. Add to it with :func:`effattack.counting.macs.register`."""
