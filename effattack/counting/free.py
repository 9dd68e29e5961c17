"""Operators that cost no MACs, and the elementwise work that some of them do.

Free is what moves, compares, draws, or works element by element. It never multiplies and sums over
an index inside one call: what does stands in :mod:`effattack.counting.costs`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from effattack.counting.costs import stored

FREE: set[str] = {
    f"aten.{name}"
    for name in """
    _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d all allclose
    amax amin aminmax any arange argmax argmin as_strided as_strided_scatter _assert_async
    _assert_tensor_metadata avg_pool2d avg_pool3d batch_norm _batch_norm_with_update bernoulli
    bincount block_diag bucketize cat clone col2im constant_pad_nd contiguous copy count_nonzero
    cudnn_batch_norm cummax cummin cumprod cumsum dequantize diag_embed diagonal_copy
    diagonal_scatter embedding empty empty_like
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
FREE |= {
    f"aten.{name}"
    for name in """
    addr channel_shuffle _coalesce coalesce _coalesced complex dense_dim dim
    _has_same_storage_numel histogram is_coalesced is_contiguous is_non_overlapping_and_dense
    is_pinned is_strides_like_format layout numel polar size storage_offset stride
    sym_is_contiguous sym_storage_offset _jagged_to_padded_dense_forward linalg_cross
    _nested_from_padded _nested_from_padded_tensor _nested_tensor_from_mask
    _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list _nested_tensor_size
    _nested_tensor_storage_offsets _nested_tensor_strides _nnz _padded_dense_to_jagged_forward
    promote_types _sparse_broadcast_to _sparse_compressed_tensor_unsafe
    _sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors sparse_compressed_tensor
    sparse_dim _sparse_log_softmax sparse_mask _sparse_mask_projection sparse_resize
    _sparse_softmax _sparse_sum _to_dense to_mkldnn to_padded_tensor _to_sparse _to_sparse_bsc
    _to_sparse_bsr _to_sparse_csc _to_sparse_csr _validate_sparse_compressed_tensor_args
    _validate_sparse_coo_tensor_args
    """.split()  # noqa: SIM905
}
FREE |= {f"profiler._record_function_{name}" for name in ("enter", "enter_new", "exit")}
"""Operators that multiply no matrices; pointwise operators and views need not stand here."""

ELEMENTWISE = {
    f"aten.{name}"
    for name in """
    _adaptive_avg_pool2d _adaptive_avg_pool3d addr avg_pool2d avg_pool3d batch_norm
    _batch_norm_with_update cudnn_batch_norm cumprod cumsum dequantize
    fake_quantize_per_channel_affine_cachemask fake_quantize_per_tensor_affine_cachemask
    _fused_dropout _fused_rms_norm glu grid_sampler_2d grid_sampler_3d hardswish index_add
    index_reduce linalg_cross linalg_vector_norm log_sigmoid_forward _log_softmax logcumsumexp
    logsumexp _masked_softmax mean miopen_batch_norm native_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training native_dropout native_group_norm native_layer_norm norm
    polar _prelu_kernel prod quantize_per_channel quantize_per_tensor quantize_per_tensor_dynamic
    renorm rrelu_with_noise _safe_softmax scatter_add scatter_reduce _softmax _sparse_log_softmax
    _sparse_softmax std std_mean _thnn_fused_gru_cell _thnn_fused_lstm_cell
    _transform_bias_rescale_qkv upsample_bicubic2d _upsample_bicubic2d_aa upsample_bilinear2d
    _upsample_bilinear2d_aa upsample_linear1d upsample_trilinear3d var var_mean
    _weight_norm_interface
    """.split()  # noqa: SIM905
}
"""Free operators that multiply element by element, or by fixed weights, though not pointwise."""

ADDING = {
    f"aten.{name}"
    for name in """
    abs add __and__ bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor ceil clamp clamp_max clamp_min clip clone _conj_physical conj_physical copysign eq
    equal floor fmax fmin frac ge gt hardshrink hardtanh heaviside __ilshift__ isfinite isinf isnan
    isneginf isposinf __ixor__ le logical_and logical_not logical_or logical_xor __lshift__ lt
    masked_fill max maximum min minimum nan_to_num ne neg nextafter __or__ positive relu relu6
    round rsub __rshift__ sgn sign signbit sub threshold trunc where __xor__
    """.split()  # noqa: SIM905
}
"""Pointwise operators that add, compare or choose, and multiply nothing."""


def is_free(op: Any, name: str) -> bool:
    """Whether an operator costs no MACs: by the table, or by its tags."""
    return name in FREE or op.is_view or torch.Tag.inplace_view in op.tags or _pointwise(name)


@cache
def is_elementwise(name: str) -> bool:
    """Whether a free operator is elementwise work."""
    return name in ELEMENTWISE or (_pointwise(name) and name not in ADDING)


def elements(out: Any) -> int:
    """How many elements an operator gave: of its first result, or of all in a list of results."""
    if isinstance(out, Tensor):
        return stored(out)
    if isinstance(out, list):
        return sum(map(elements, out))
    return elements(out[0]) if isinstance(out, tuple) and out else 0


@cache
def _pointwise(name: str) -> bool:
    """Whether any overload carries the tag; some (in place, tensor arguments) lack it."""
    library, _, op = name.partition(".")
    packet = getattr(getattr(torch.ops, library), op, None)
    overloads = () if packet is None else packet.overloads()
    return any(torch.Tag.pointwise in getattr(packet, o).tags for o in overloads)
