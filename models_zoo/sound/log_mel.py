"""What Whisper makes of sound first: logarithms of its power in bands of the mel scale.

Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", ICML 2023 (arXiv
2212.04356). The bands are Slaney's, of equal area. The Fourier transform is written as a product
with its bases, so that it is differentiated in real numbers and its MACs are counted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RATE = 16_000
"""Samples per second."""
FRAME, HOP = 400, 160
"""Samples of a frame, and from one to the next."""
BINS = FRAME // 2 + 1
"""Frequencies of a real frame."""
FLOOR, DEPTH = 1e-10, 8.0
"""The least power, and how many powers of ten below the loudest anything is heard."""


class LogMel(nn.Module):
    """Sound to log-mel frames, as ``WhisperFeatureExtractor`` of ``transformers`` makes them.

    Args:
        bands: how many there are.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.register_buffer("bases", bases(), persistent=False)
        self.register_buffer("filters", filters(bands), persistent=False)

    def forward(self, sound: Tensor) -> Tensor:
        """Samples (B, frames · HOP) -> (B, bands, frames)."""
        around = F.pad(sound[:, None], (FRAME // 2, FRAME // 2), mode="reflect")
        waves = F.conv1d(around[..., :-HOP], self.bases, stride=HOP)
        power = waves.square().unflatten(1, (2, BINS)).sum(1)
        logs = (self.filters @ power).clamp_min(FLOOR).log10()
        return (logs.maximum(logs.amax((1, 2), keepdim=True) - DEPTH) + 4) / 4


def macs(bands: int) -> int:
    """Of one frame."""
    return 2 * BINS * FRAME + BINS * bands


def bases() -> Tensor:
    """(2 · BINS, 1, FRAME): cosines and sines under Hann's window."""
    time = torch.arange(FRAME).double()
    angles = 2 * math.pi * torch.arange(BINS)[:, None] * time / FRAME
    window = torch.hann_window(FRAME, dtype=torch.float64)
    return (torch.cat([angles.cos(), angles.sin()]) * window)[:, None].float()


def filters(bands: int) -> Tensor:
    """(bands, BINS): triangles between neighbours on Slaney's scale, of equal area."""
    edges = to_hertz(torch.linspace(0, float(to_mel(RATE / 2)), bands + 2, dtype=torch.float64))
    hertz = torch.linspace(0, RATE / 2, BINS, dtype=torch.float64)
    low, middle, high = (edges[i : i + bands, None] for i in range(3))
    rising, falling = (hertz - low) / (middle - low), (high - hertz) / (high - middle)
    return (rising.minimum(falling).clamp_min(0) * 2 / (high - low)).float()


def to_mel(hertz: float) -> float:
    """Slaney's scale: linear up to 1 kHz, then 27 steps for every factor of 6.4."""
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000, 6.4)


def to_hertz(mel: Tensor) -> Tensor:
    """Its inverse."""
    return torch.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
