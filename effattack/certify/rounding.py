"""Rounding: how far floating-point arithmetic may stray from the numbers that bounds are of.

A deployed network computes in float32, a bound in float64. n roundings in a row, in any order,
change a sum of terms by at most γ_n = n u / (1 − n u) of the sum of their absolute values (Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd ed., 2002, section 3.1), u half of the
distance from 1 to the next number. Convolutions that are not sums of products, those of Winograd
and by Fourier transform, may stray further: a bound does not cover them.
"""

from __future__ import annotations

import torch

UNIT = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.float16: 2.0**-11,
    torch.bfloat16: 2.0**-8,
}
"""u of a precision."""


def gamma(terms: int, dtype: torch.dtype) -> float:
    """γ_n of ``terms`` roundings in a precision."""
    strayed = terms * UNIT[dtype]
    return strayed / (1 - strayed) if strayed < 1 else float("inf")
