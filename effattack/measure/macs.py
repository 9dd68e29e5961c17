"""Executed multiply-accumulates (MACs), counted by dispatch.

Every operator that runs is looked up in one of two tables: ``COSTS`` (a formula for its MACs) or
``FREE`` (moves, compares, normalises or adds, but multiplies no matrices). Pointwise operators and
views are free by their tag. An operator in neither raises: a counter that guesses silently is how
fused attention and int8 layers came to count as zero in ``torch.utils.flop_counter``.

The papers on efficient models print the same quantity as "GFLOPs" (1 MAC = 1 "FLOP").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
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


def _fused_encoder_layer(
    src: Tensor, embed_dim: int, num_heads: int, *rest: Any, **__: Any
) -> int:
    """``aten._transformer_encoder_layer_fwd``: multi-head attention and the two-layer MLP."""
    tokens = src[..., 0].numel()
    hidden = next(t.shape[0] for t in rest[11:] if isinstance(t, Tensor) and t.dim() == 2)
    return _fused_multihead(src, src, src, embed_dim) + 2 * tokens * embed_dim * hidden


COSTS: dict[str, Formula] = {
    "aten.mm": _matmul,
    "aten.bmm": _matmul,
    "aten.mv": lambda a, b, **_: a.numel(),
    "aten.dot": lambda a, b, **_: a.numel(),
    "aten.addmm": _addmm,
    "aten.baddbmm": _addmm,
    "aten.addmv": lambda bias, a, b, *_, **__: a.numel(),
    "aten._addmm_activation": _addmm,
    "aten._int_mm": _matmul,
    "aten._scaled_mm": _matmul,
    "aten.linear": _linear,
    "aten.mkldnn_linear": _linear,
    "aten._weight_int8pack_mm": _linear,
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
    "quantized.linear_dynamic": _packed_linear,
    "quantized.linear_relu_dynamic": _packed_linear,
    "quantized.linear": _packed_linear,
    "quantized.linear_relu": _packed_linear,
}
"""Operator -> formula. Add to it with :func:`register`."""

FREE: set[str] = {
    f"aten.{name}"
    for name in """
    _adaptive_avg_pool2d _assert_async _assert_tensor_metadata _fused_rms_norm
    _local_scalar_dense _log_softmax _safe_softmax _softmax _to_copy _unique2 _unsafe_view
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact2d
    adaptive_max_pool2d all amax amin aminmax any arange argmax argmin as_strided avg_pool2d
    batch_norm bernoulli bincount bucketize cat clone constant_pad_nd contiguous copy copy_
    count_nonzero cummax cummin cumprod cumsum detach_ diagonal_copy embedding empty empty_like
    empty_permuted empty_strided equal eye fill fill_ flip full full_like gather grid_sampler_2d
    index index_add index_copy index_put index_put_ index_select item kthvalue lift_fresh_copy
    linspace logsumexp masked_fill_ masked_scatter masked_select max max_pool2d_with_indices
    mean median min mode multinomial native_batch_norm native_dropout native_group_norm
    native_layer_norm new_empty new_empty_strided new_full new_ones new_zeros nonzero norm
    normal_ one_hot ones ones_like pixel_shuffle pixel_unshuffle prod rand rand_like randint
    randn randn_like randperm reflection_pad2d repeat repeat_interleave replication_pad2d
    resize_ roll rot90 scalar_tensor scatter scatter_ scatter_add scatter_add_ searchsorted set_
    slice_scatter sort split_with_sizes_copy stack std std_mean sum tile topk tril triu
    unfold_copy uniform_ unique_consecutive unique_dim upsample_bicubic2d upsample_bilinear2d
    upsample_nearest2d var var_mean zero_ zeros zeros_like linalg_vector_norm
    _native_batch_norm_legit_no_training _native_batch_norm_legit _batch_norm_with_update
    cudnn_batch_norm miopen_batch_norm sym_size sym_numel sym_stride is_same_size
    """.split()
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


def _name(op: Any) -> str:
    """``aten.mm`` for ``torch.ops.aten.mm``, ``torch.ops.aten.mm.default`` and ``"aten.mm"``."""
    if isinstance(op, str):
        return op
    packet = getattr(op, "overloadpacket", op)
    return packet._qualified_op_name.replace("::", ".")


class MacsCounter(TorchDispatchMode):
    """Counts the MACs of what runs inside the ``with`` block.

    Args:
        root: module whose submodules the MACs are also attributed to, for messages.

    Attributes:
        total: MACs so far.
        by_operator: MACs per operator.
        by_module: MACs per submodule of ``root`` (a parent includes its children).

    Raises:
        UnknownOperator: at the first operator that is in neither table.
    """

    def __init__(self, root: nn.Module | None = None) -> None:
        super().__init__()
        self.total = 0
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
        out = func(*args, **kwargs)
        name = _name(func)
        if (formula := COSTS.get(name)) is not None:
            self._add(name, int(formula(*args, out=out, **kwargs)))
        elif not (name in FREE or func.is_view or torch.Tag.pointwise in func.tags):
            raise UnknownOperator(
                f"the MACs counter has no cost for operator {name}: teach it one with "
                f"effattack.measure.macs.register({name!r}, formula), or formula=None if it "
                "multiplies no matrices"
            )
        return out

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
