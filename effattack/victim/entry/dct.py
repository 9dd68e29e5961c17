"""JPEG as gradients see it: the same transform and tables, rounded smoothly.

Shin and Song, "JPEG-resistant Adversarial Images", NIPS 2017 workshop on machine learning and
computer security: the value of a rounded coefficient is round(x) + (x - round(x))³, so that the
gradient is that of the cubic. What it returns is near the real codec, and used for its gradient
alone. Tables: ISO/IEC 10918-1, annex K, scaled by quality as libjpeg does; colours at half
resolution (4:2:0), as Pillow writes them.
"""

from __future__ import annotations

from functools import cache
from math import cos, pi, sqrt

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from effattack.budgets import LEVELS

SIDE = 8
"""Of a block."""
BRIGHTNESS = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
COLOUR = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99), (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * SIDE,) * 4,
)  # fmt: skip
"""Quantization steps of the luminance and of the two chrominance channels, at quality 50."""
TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""RGB to Y, Cb and Cr, centred on zero (JFIF 1.02)."""


def soft_jpeg(images: Tensor, quality: int) -> Tensor:
    """Images (B, 1 or 3, H, W) in [0, 1] -> what JPEG leaves of them, differentiable."""
    height, width = images.shape[-2:]
    whole = 2 * SIDE
    padded = pad(images, (0, -width % whole, 0, -height % whole), mode="replicate") * LEVELS
    if images.shape[1] == 1:
        found = _quantized(padded - 128, BRIGHTNESS, quality) + 128
    else:
        matrix = torch.tensor(TO_YCC, dtype=images.dtype, device=images.device)
        ycc = torch.einsum("dc,bchw->bdhw", matrix, padded)
        bright = _quantized(ycc[:, :1] - 128, BRIGHTNESS, quality) + 128
        colour = _quantized(avg_pool2d(ycc[:, 1:], 2), COLOUR, quality)
        colour = interpolate(colour, scale_factor=2, mode="bilinear")
        found = torch.einsum("dc,bchw->bdhw", matrix.inverse(), torch.cat([bright, colour], 1))
    return (found[..., :height, :width] / LEVELS).clamp(0, 1)


def steps(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """(8, 8): the quantization steps of a quality, as libjpeg scales a table."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * scale + 50) // 100).clamp(1, 255)


def _quantized(channels: Tensor, table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """(B, C, H, W), H and W multiples of 8, block by block into frequencies, rounded, and back."""
    batch, count, height, width = channels.shape
    rows = _cosines().to(channels)
    blocks = channels.view(batch, count, height // SIDE, SIDE, width // SIDE, SIDE)
    size = steps(table, quality).to(channels)[:, None, :]
    frequencies = torch.einsum("ui,bcyixj,vj->bcyuxv", rows, blocks, rows) / size
    kept = _rounded(frequencies) * size
    return torch.einsum("ui,bcyuxv,vj->bcyixj", rows, kept, rows).reshape(channels.shape)


def _rounded(values: Tensor) -> Tensor:
    whole = values.round().detach()
    return whole + (values - whole) ** 3


@cache
def _cosines() -> Tensor:
    """(8, 8), orthonormal: frequency, place."""
    return torch.tensor(
        [
            [
                (sqrt(1 / SIDE) if u == 0 else sqrt(2 / SIDE)) * cos((2 * i + 1) * u * pi / 16)
                for i in range(SIDE)
            ]
            for u in range(SIDE)
        ],
        dtype=torch.float64,
    )
