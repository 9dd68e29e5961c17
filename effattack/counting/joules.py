"""Modelled energy: executed operations and bytes × published energies, not a measurement.

Joules per operation are those of Horowitz, "Computing's energy problem (and what we can do about
it)", ISSCC 2014, figure 1.1.9: 45 nm, 0.9 V. The model takes every operand and result of a matrix
product through DRAM once, as in inference of single images whose weights fit in no cache. It leaves
out control, idle power, and everything between the products. It compares images on one victim; it
says nothing about a device, and its columns say "modelled".
"""

from __future__ import annotations

from effattack.counting.macs import MacsCounter

PICO = 1e-12
FLOAT32_MAC = (3.7 + 0.9) * PICO
"""Joules: 32-bit float multiply and add."""
INT8_MAC = (0.2 + 0.1) * PICO
"""Joules: 8-bit integer multiply, 32-bit integer add."""
DRAM_BYTE = 1300 / 8 * PICO
"""Joules: the lower end of 1.3 to 2.6 nJ for 64 bits."""
INT8_OPERATORS = ("aten._int_mm", "quantized.", "onednn.q", "bitsandbytes.")
"""Beginnings of the names of operators that multiply 8-bit integers. Outlier columns, which
LLM.int8() keeps in float inside a fused operator, count as int8."""


def modelled_joules(counter: MacsCounter) -> float:
    """Joules of what ran under a counter, by the model of this module."""
    int8 = sum(
        macs for name, macs in counter.by_operator.items() if name.startswith(INT8_OPERATORS)
    )
    float32 = counter.total - int8
    return float32 * FLOAT32_MAC + int8 * INT8_MAC + counter.bytes * DRAM_BYTE
