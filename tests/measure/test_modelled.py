"""Modelled energy against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from effattack.counting.joules import DRAM_BYTE, FLOAT32_MAC, INT8_MAC, modelled_joules
from effattack.counting.macs import MacsCounter


def test_a_float_layer_by_hand() -> None:
    layer = nn.Linear(16, 8)
    with torch.no_grad(), MacsCounter() as counter:
        layer(torch.rand(2, 16))
    assert counter.bytes == 4 * (2 * 16 + 16 * 8 + 8 + 2 * 8)
    expected = 2 * 16 * 8 * FLOAT32_MAC + counter.bytes * DRAM_BYTE
    assert modelled_joules(counter) == pytest.approx(expected)


def test_an_int8_product_costs_less_than_a_float_one() -> None:
    a, b = torch.ones(32, 32, dtype=torch.int8), torch.ones(32, 32, dtype=torch.int8)
    with MacsCounter() as counter:
        torch._int_mm(a, b)
    assert counter.bytes == 2 * 32 * 32 + 4 * 32 * 32
    expected = 32**3 * INT8_MAC + counter.bytes * DRAM_BYTE
    assert modelled_joules(counter) == pytest.approx(expected)


def test_what_multiplies_nothing_costs_nothing() -> None:
    with MacsCounter() as counter:
        torch.relu(torch.rand(100)).sum()
    assert modelled_joules(counter) == 0
