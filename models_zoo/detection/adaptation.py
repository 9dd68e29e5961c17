"""Domain adaptation of two-stage detectors: features that do not tell one domain from another.

Chen et al., "Domain Adaptive Faster R-CNN for Object Detection in the Wild", CVPR 2018 (arXiv
1803.03243). Two classifiers say whether a scene is of the labelled source or of the unlabelled
target: one at every cell of the feature map, where image-level shift shows, one for every proposal,
where instance-level shift shows. A gradient reversal layer (Ganin and Lempitsky 2015, arXiv
1409.7495) before each lets them learn what the features learn to hide; a third term holds the two
consistent with each other.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reverse(features: Tensor) -> Tensor:
    """The same features; whoever minimises behind it, maximises before it."""
    return _Reversal.apply(features)


class DomainClassifiers(nn.Module):
    """Log-odds of the target domain, by cell of the feature map and by proposal.

    Args:
        channels: of the feature map.
        features: of a proposal, before its class and box are read.
        width: of both classifiers' hidden layer.
    """

    def __init__(self, channels: int, features: int, width: int = 64) -> None:
        super().__init__()
        self.cells = nn.Sequential(
            nn.Conv2d(channels, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1), nn.Flatten()
        )
        self.proposals = nn.Sequential(
            nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 1), nn.Flatten(0)
        )

    def forward(self, maps: Tensor, proposals: Tensor, image: Tensor, target: Tensor) -> Tensor:
        """Both classification losses, reversed for the features, and the consistency of the two.

        The consistency is not reversed: classifiers and features lower it together.

        Args:
            maps: (B, channels, rows, columns).
            proposals: (n, features).
            image: (n,) which of the B images a proposal is of.
            target: (B,) bool: whether an image is of the target domain.
        """
        by_cell, by_proposal = self.cells(reverse(maps)), self.proposals(reverse(proposals))
        told = target[:, None].expand_as(by_cell).to(by_cell)
        of_cells = binary_cross_entropy_with_logits(by_cell, told)
        of_proposals = binary_cross_entropy_with_logits(by_proposal, told[image, 0])
        both = self.cells(maps).sigmoid(), self.proposals(proposals).sigmoid()
        return of_cells + of_proposals + inconsistency(*both, image)


def inconsistency(cells: Tensor, proposals: Tensor, image: Tensor) -> Tensor:
    """Equation 8: how far a proposal's probability is from the mean of its image's cells.

    Args:
        cells: (B, cells) probabilities of the target domain.
        proposals: (n,) the same.
        image: (n,) which image a proposal is of.

    Returns:
        The mean over proposals of the Euclidean distance, that of two numbers.
    """
    return (cells.mean(1)[image] - proposals).abs().mean()
