"""Executed multiply-accumulates (MACs), counted by dispatch.

Every operator that runs is looked up in one of two tables: ``COSTS`` (a formula for its MACs) or
``FREE`` (moves, compares, normalises or adds, but multiplies no matrices). Pointwise operators and
views are free by their tag, composite operators count as their parts, and ``op_`` in place counts
as ``op``. Any other operator raises: a counter that guesses silently is how fused attention and
int8 layers came to count as zero in ``torch.utils.flop_counter``.

The papers on efficient models print the same quantity as "GFLOPs" (1 MAC = 1 "FLOP").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.module_tracker import ModuleTracker

from effattack.errors import UnknownOperator

Formula = Callable[..., int]
"""``formula(*args, out=result, **kwargs) -> int``: the MACs of one call of an operator."""


def _matmul(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """(..., n, k) @ (..., k, m): every element of ``a`` meets ``m`` columns."""
    return a.numel() * b.shape[-1]


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    return _matmul(a, b)


def _linear(x: Tensor, weight: Tensor, *_: Any, **__: Any) -> int:
    return x.numel() * weight.shape[0]


def _packed_linear(x: Tensor, *_: Any, out: Tensor, **__: Any) -> int:
    """Linear layers whose weight is an opaque packed object: (..., k) -> (..., m)."""
    return x.numel() * out.shape[-1]


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
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Q Kᵀ and A V: (B, h, n, d), (B, h, m, d), (B, h, m, e)."""
    batch_heads_queries = prod(query.shape[:-1])
    return batch_heads_queries * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _fused_multihead(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, *_: Any, **__: Any
) -> int:
    """``aten._native_multi_head_attention``: in-projection, attention, out-projection."""
    n, m = query[..., 0].numel(), key[..., 0].numel()
    scores = n * key.shape[1] * 2 * embed_dim
    return embed_dim * embed_dim * (2 * n + 2 * m) + scores


def _fused_encoder_layer(src: Tensor, embed_dim: int, num_heads: int, *rest: Any, **__: Any) -> int:
    """``aten._transformer_encoder_layer_fwd``: multi-head attention and the two-layer MLP."""
    tokens = src[..., 0].numel()
    hidden = next(t.shape[0] for t in rest[11:] if isinstance(t, Tensor) and t.dim() == 2)
    return _fused_multihead(src, src, src, embed_dim) + 2 * tokens * embed_dim * hidden


def _rnn_layer(x: Tensor, *weights: Any, **__: Any) -> int:
    """``aten.mkldnn_rnn_layer``: every step meets the input and the recurrent weights."""
    return x[..., 0].numel() * sum(w.numel() for w in weights[:2])


def _cudnn_rnn(x: Tensor, weights: list[Tensor], *_: Any, **__: Any) -> int:
    """``aten._cudnn_rnn``: the same over all layers, directions and projections at once."""
    return x[..., 0].numel() * sum(w.numel() for w in weights if w.dim() == 2)


COSTS: dict[str, Formula] = {
    "aten.mm": _matmul,
    "aten.bmm": _matmul,
    "aten.mv": lambda a, b, **_: a.numel(),
    "aten.dot": lambda a, b, **_: a.numel(),
    "aten.addmm": _addmm,
    "aten.baddbmm": _addmm,
    "aten.addbmm": _addmm,
    "aten.addmv": lambda bias, a, b, *_, **__: a.numel(),
    "aten._addmm_activation": _addmm,
    "aten._int_mm": _matmul,
    "aten._scaled_mm": _matmul,
    "aten.linear": _linear,
    "aten.mkldnn_linear": _linear,
    "aten._weight_int8pack_mm": _linear,
    "aten._weight_int4pack_mm": _packed_linear,
    "aten._weight_int4pack_mm_for_cpu": _packed_linear,
    "aten.convolution": _convolution,
    "aten._convolution": _convolution,
    "aten.mkldnn_convolution": _convolution,
    "aten.cudnn_convolution": _convolution,
    "aten.convolution_overrideable": _convolution,
    "aten._scaled_dot_product_flash_attention": _attention,
    "aten._scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten._scaled_dot_product_efficient_attention": _attention,
    "aten._scaled_dot_product_cudnn_attention": _attention,
    "aten._scaled_dot_product_fused_attention_overrideable": _attention,
    "aten._native_multi_head_attention": _fused_multihead,
    "aten._transformer_encoder_layer_fwd": _fused_encoder_layer,
    "aten.mkldnn_rnn_layer": _rnn_layer,
    "aten._cudnn_rnn": _cudnn_rnn,
    "quantized.linear_dynamic": _packed_linear,
    "quantized.linear_relu_dynamic": _packed_linear,
    "quantized.linear": _packed_linear,
    "quantized.linear_relu": _packed_linear,
}
"""Operator -> formula. Add to it with :func:`register`."""

FREE: set[str] = {
    f"aten.{name}"
    for name in """
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d all allclose
    amax amin aminmax any arange argmax argmin as_strided as_strided_scatter _assert_async
    _assert_tensor_metadata avg_pool2d avg_pool3d batch_norm _batch_norm_with_update bernoulli
    bincount block_diag bucketize cat clone col2im constant_pad_nd contiguous copy count_nonzero
    cudnn_batch_norm cummax cummin cumprod cumsum dequantize diag_embed diagonal_copy
    diagonal_scatter embedding _embedding_bag _embedding_bag_forward_only empty empty_like
    empty_permuted empty_strided equal exponential eye fake_quantize_per_channel_affine_cachemask
    fake_quantize_per_tensor_affine_cachemask fill flip floor_divide full full_like _fused_dropout
    _fused_rms_norm gather geometric glu grid_sampler_2d grid_sampler_3d hardswish histc im2col
    index index_add index_copy index_fill index_put index_reduce index_select int_repr _is_all_true
    _is_any_true is_same_size isin item kthvalue lift_fresh_copy linalg_vector_norm linspace
    _local_scalar_dense log_normal log_sigmoid_forward _log_softmax logcumsumexp logspace logsumexp
    masked_fill masked_scatter masked_select _masked_softmax max max_pool2d_with_indices
    max_pool3d_with_indices max_unpool2d mean median min miopen_batch_norm mode multinomial
    nanmedian nansum native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    native_dropout native_group_norm native_layer_norm new_empty new_empty_strided new_full new_ones
    new_zeros nonzero norm normal one_hot ones ones_like _pack_padded_sequence pixel_shuffle
    pixel_unshuffle _prelu_kernel prod put quantize_per_channel quantize_per_tensor
    quantize_per_tensor_dynamic rand rand_like randint randn randn_like random randperm range
    reflection_pad1d reflection_pad2d reflection_pad3d renorm repeat repeat_interleave
    replication_pad1d replication_pad2d replication_pad3d resize resize_as roll rot90
    rrelu_with_noise _safe_softmax scalar_tensor scatter scatter_add scatter_reduce searchsorted
    select_scatter set slice_scatter _softmax sort split_with_sizes_copy stack std std_mean sum
    sym_numel sym_size sym_stride take _thnn_fused_gru_cell _thnn_fused_lstm_cell tile _to_copy topk
    trace _transform_bias_rescale_qkv tril tril_indices triu triu_indices unfold_copy uniform
    _unique _unique2 unique_consecutive unique_dim unique_dim_consecutive unsafe_split
    unsafe_split_with_sizes _unsafe_view upsample_bicubic2d _upsample_bicubic2d_aa
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    upsample_trilinear3d var var_mean _weight_norm_interface where zero zeros zeros_like
    """.split()  # noqa: SIM905
}
"""Operators that multiply no matrices; pointwise operators and views need not stand here."""


def register(op: Any, formula: Formula | None) -> None:
    """Give the counter the cost of an operator.

    Args:
        op: ``torch.ops.library.name``, one of its overloads, or the string ``"library.name"``.
        formula: ``formula(*args, out=result, **kwargs) -> int``, called with the operator's own
            arguments and its result; ``None`` declares the operator free.
    """
    name = _name(op)
    FREE.discard(name)
    COSTS.pop(name, None)
    if formula is None:
        FREE.add(name)
    else:
        COSTS[name] = formula


def _bytes(value: Any) -> int:
    """Of all tensors in nested tuples and lists."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, tuple | list) else 0


def _name(op: Any) -> str:
    """``aten.mm`` for ``torch.ops.aten.mm``, its overloads, and ``"aten.mm"``; no trailing "_"."""
    if not isinstance(op, str):
        op = getattr(op, "overloadpacket", op)._qualified_op_name.replace("::", ".")
    return op if op.endswith("__") else op.removesuffix("_")


def _is_free(op: Any, name: str) -> bool:
    return name in FREE or op.is_view or torch.Tag.inplace_view in op.tags or _pointwise(name)


@cache
def _pointwise(name: str) -> bool:
    """Whether any overload carries the tag; some (in place, tensor arguments) lack it."""
    library, _, op = name.partition(".")
    packet = getattr(getattr(torch.ops, library), op, None)
    overloads = () if packet is None else packet.overloads()
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in overloads)


class MacsCounter(TorchDispatchMode):
    """Counts the MACs of what runs inside the ``with`` block.

    Args:
        root: module whose submodules the MACs are also attributed to, for messages.

    Attributes:
        total: MACs so far.
        bytes: of all operands and results of the operators that cost MACs, each counted once per
            call. Weights packed into an opaque object are not seen.
        by_operator: MACs per operator.
        by_module: MACs per submodule of ``root`` (a parent includes its children).

    Raises:
        UnknownOperator: at the first operator that is in neither table.
    """

    def __init__(self, root: nn.Module | None = None) -> None:
        super().__init__()
        self.total = 0
        self.bytes = 0
        self.by_operator: Counter[str] = Counter()
        self.by_module: Counter[str] = Counter()
        self._tracker = ModuleTracker() if root is not None else None

    def __enter__(self) -> MacsCounter:
        if self._tracker is not None:
            self._tracker.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        if self._tracker is not None:
            self._tracker.__exit__(*exc)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = _name(func)
        if (formula := COSTS.get(name)) is not None:
            out = func(*args, **kwargs)
            self._add(name, int(formula(*args, out=out, **kwargs)))
            self.bytes += _bytes((args, out))
            return out
        if _is_free(func, name):
            return func(*args, **kwargs)
        if (out := self._by_parts(func, args, kwargs)) is not NotImplemented:
            return out
        raise UnknownOperator(
            f"the MACs counter has no cost for operator {name}: teach it one with "
            f"effattack.measure.macs.register({name!r}, formula), or formula=None if it "
            "multiplies no matrices"
        )

    def _by_parts(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Run a composite operator (inference mode hands them over whole), counting its parts."""
        super().__enter__()
        try:
            return func.decompose(*args, **kwargs)
        finally:
            super().__exit__(None, None, None)

    def _add(self, name: str, macs: int) -> None:
        self.total += macs
        self.by_operator[name] += macs
        if self._tracker is not None:
            for module in self._tracker.parents:
                self.by_module[module] += macs


def count_macs(function: Callable[..., Any], *args: Any) -> int:
    """MACs executed by one call of ``function``, run without gradients.

    The fused kernels of eval mode take part, because autograd is off: what is counted is what a
    deployment runs.
    """
    with torch.no_grad(), MacsCounter() as counter:
        function(*args)
    return counter.total


def linear_macs(tokens: int, modules: Iterable[nn.Linear]) -> int:
    """MACs of linear layers over ``tokens`` rows each."""
    return sum(tokens * m.in_features * m.out_features for m in modules)
