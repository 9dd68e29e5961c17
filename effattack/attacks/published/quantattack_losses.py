"""QuantAttack's loss on LLM.int8(); see :mod:`effattack.attacks.published.quantattack`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.objectives import Goal
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Trace, Victim


@dataclass(frozen=True)
class NearOutliers:
    """The paper's loss, turned: values next to the threshold should be far beyond it.

    − Σ over shapes of the mean of (|a| − 70)² − 50 · mean of (logits − clean logits)², where |a|
    runs over the top 4 of every column of the inputs of all layers of that shape, if in (2, 7).

    Args:
        low, high: which |a| are pushed (paper: 2 and 7, for the threshold θ = 6).
        top: largest |a| per column.
        target: of |a|.
        prediction_weight: of the logits' distance.
    """

    low: float = 2.0
    high: float = 7.0
    top: int = 4
    target: float = 70.0
    prediction_weight: float = 50.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high or self.top < 1:
            raise UsageError(
                f"band = ({self.low}, {self.high}), top = {self.top}: use 0 <= low < high around "
                "the threshold of the victim, such as (2, 7) for 6, and at least 1 per column"
            )

    def check(self, trace: Trace, victim: Victim) -> None:
        if not _entered(trace):
            raise NotApplicable(
                "QuantAttack raises the outlier columns of LLM.int8(), quantization by "
                f"bitsandbytes; {victim.name} is a victim of {victim.family} and has none"
            )

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        loss = self.prediction_weight * (trace.logits - goal.logits).square().mean(1)
        shapes: dict[tuple[int, ...], list[Tensor]] = {}
        for entered in _entered(trace):
            peaks = entered.abs().topk(min(self.top, entered.shape[1]), dim=1).values
            shapes.setdefault(tuple(entered.shape[1:]), []).append(peaks)
        for peaks in map(torch.stack, shapes.values()):
            pushed = (peaks > self.low) & (peaks < self.high)
            far = ((peaks - self.target).square() * pushed).sum((0, 2, 3))
            loss = loss + far / pushed.sum((0, 2, 3)).clamp_min(1)
        return -loss


def _entered(trace: Trace) -> list[Tensor]:
    """(B, rows, columns) of every use of a quantized layer."""
    return [value for name, value in trace.aux.items() if name.endswith(".columns.inputs")]
