"""Bit operations: MACs x weight bits x activation bits, whatever the share that is quantized."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from effattack.models_zoo.quantization.probing import bit_operations

bits = st.tuples(st.integers(1, 8), st.none() | st.integers(1, 8))
counts = st.integers(0, 10**9)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.float64])


@given(counts, counts, bits, dtypes)
def test_the_two_parts_add_up(
    quantized: int, floating: int, bits: tuple[int, int | None], dtype: torch.dtype
) -> None:
    width = {torch.float16: 16, torch.float32: 32, torch.float64: 64}[dtype]
    macs = torch.tensor([quantized, quantized + floating], dtype=torch.float64)
    first, second = bit_operations(macs, quantized, bits, dtype).tolist()
    assert first == quantized * bits[0] * (width if bits[1] is None else bits[1])
    assert second - first == floating * width**2
    assert second <= (quantized + floating) * width**2, "never more than in floats"


@given(counts, st.tuples(st.integers(1, 8), st.integers(1, 8)), dtypes)
def test_fewer_bits_cost_less(macs: int, bits: tuple[int, int], dtype: torch.dtype) -> None:
    def cost(weight: int, activation: int | None) -> float:
        spent = torch.tensor([macs], dtype=torch.float64)
        return bit_operations(spent, macs, (weight, activation), dtype).item()

    weight, activation = bits
    assert cost(weight, activation) <= cost(weight + 1, activation) <= cost(weight + 1, None)
    assert cost(weight, activation) == cost(activation, weight)
