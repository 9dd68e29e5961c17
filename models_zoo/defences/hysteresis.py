"""Hysteresis of exit thresholds: once a stage was nearly sure, later ones stop more easily."""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.models_zoo.criteria import Confidence, Criterion


class Hysteresis(Criterion):
    """A Schmitt trigger on the confidence: two thresholds, and a memory.

    Stop at the first stage whose largest softmax probability reaches ``high``; or that reaches
    ``low``, if an earlier stage did, too. Holding an image just below one threshold is then no
    longer enough: after one stage in the band [low, high) all later ones must stay below ``low``.
    For early exits and cascades alike; the structural worst case is not lowered.

    Args:
        high: probability at which an image stops at once.
        low: probability at which it stops if it has been there before.

    Raises:
        UsageError: unless 0 <= low <= high <= 1.
    """

    def __init__(self, high: float, low: float) -> None:
        if not low <= high:
            raise UsageError(f"low = {low} must not exceed high = {high}: the band is [low, high)")
        self.high, self.low = Confidence(high), Confidence(low)

    def __repr__(self) -> str:
        return f"Hysteresis(high={self.high.thresholds}, low={self.low.thresholds})"

    def margin(self, stage_logits: Tensor) -> Tensor:
        unsure = self.high.margin(stage_logits)
        if stage_logits.shape[1] == 1:
            return unsure
        below = [self.low.margin(stage_logits[:, : k + 1]) for k in range(stage_logits.shape[1])]
        never_before = torch.stack(below[:-1]).amin(0)
        return torch.minimum(unsure, torch.maximum(below[-1], never_before))
