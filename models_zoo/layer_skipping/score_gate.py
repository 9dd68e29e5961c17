"""A gate of SkipNet that decides by a score margin, as early exits may."""

from __future__ import annotations

from torch import Tensor, nn

from effattack.victim.margins import score_lead


class ScoreMarginGate(nn.Module):
    """Compute the block where the top of some scores leads the second by less than a threshold.

    The scores may be those of a classifier: what it is sure about needs no further block.

    Args:
        scores: features -> scores (B, two or more), such as one linear layer.
        threshold: a difference of scores.
    """

    def __init__(self, scores: nn.Module, threshold: float) -> None:
        super().__init__()
        self.scores, self.threshold = scores, float(threshold)

    def forward(self, features: Tensor) -> Tensor:
        return self.threshold - score_lead(self.scores(features))
