"""What early exits and cascades share: stages in a row, each of which may be the last.

A criterion decides from the logits seen so far whether to go on. Both paths of a victim call the
same criterion.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.victim import Gate, Trace


class Confidence:
    """Stop as soon as the largest softmax probability reaches the threshold.

    Args:
        thresholds: one probability for all stages, or one per stage; 0 or less always stops, 1 or
            more never does.
    """

    def __init__(self, thresholds: float | Sequence[float]) -> None:
        self.thresholds = thresholds if isinstance(thresholds, int | float) else tuple(thresholds)

    def __repr__(self) -> str:
        return f"Confidence({self.thresholds})"

    def margin(self, stage_logits: Tensor) -> Tensor:
        """Logits of the stages so far (B, stages, classes) -> margin (B,) of going on."""
        stage = stage_logits.shape[1] - 1
        given = self.thresholds
        threshold = given if isinstance(given, int | float) else given[stage]
        return confidence_margin(stage_logits[:, -1], threshold)


def confidence_margin(logits: Tensor, threshold: float) -> Tensor:
    """Margin (B,) in (-1, 1) of the decision "the top softmax probability is below t".

    The decision is taken on log-odds, m = log(t / (1 - t)) - (z_top - logsumexp of the others),
    and bounded as m / (s + |m|) with s the spread of the image's logits. The sign is that of
    t - p_top; unlike it, the slope does not underflow where the softmax saturates, and scaling all
    logits (with t chosen anew) changes nothing. t - p_top blinds gradient attacks there.

    Args:
        logits: (B, classes).
        threshold: t.
    """
    top, index = logits.max(1)
    others = logits.scatter(1, index[:, None], -inf).logsumexp(1)
    doubt = log_odds(threshold) - (top - others)
    spread = logits.detach().std(1).clamp_min(torch.finfo(logits.dtype).eps)
    return doubt / (spread + doubt.abs())


def log_odds(probability: float) -> float:
    """log(p / (1 - p)); beyond any logit, but finite, outside (0, 1)."""
    if 0 < probability < 1:
        return log(probability / (1 - probability))
    return 1e9 if probability >= 1 else -1e9


def first_exit(margins: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Margins of going on past each stage but the last -> (active, reached), each (B, stages - 1).

    A stage is reached if all before it were passed; active, if it is passed itself.
    """
    onward = torch.stack([margin > 0 for margin in margins], dim=1)
    active = onward.cumprod(1).bool()
    reached = torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], dim=1)
    return active, reached


def chain_trace(
    stage_logits: Tensor,
    margins: Sequence[Tensor],
    names: Sequence[str],
    cumulative_macs: Sequence[float],
) -> Trace:
    """The trace of stages in a row.

    Args:
        stage_logits: (B, stages, classes), of all stages.
        margins: of going on past each stage but the last, each (B,).
        names: of those gates.
        cumulative_macs: MACs of leaving at each stage.
    """
    active, reached = first_exit(margins)
    taken = active.sum(1)
    spent = torch.tensor(cumulative_macs, dtype=torch.float64, device=taken.device)
    gates = tuple(
        Gate(
            name=name,
            margin=margin,
            active=active[:, k],
            reached=reached[:, k],
            cost=float(cumulative_macs[-1] - cumulative_macs[k]),
        )
        for k, (name, margin) in enumerate(zip(names, margins, strict=True))
    )
    logits = stage_logits[torch.arange(len(taken), device=taken.device), taken]
    return Trace(logits=logits, gates=gates, macs=spent[taken], stage_logits=stage_logits)


def check_thresholds(thresholds: Sequence[float], gates: int) -> None:
    """Refuse a number of thresholds that does not fit, or values that are no probabilities.

    Raises:
        UsageError: naming what was given.
    """
    if len(thresholds) != gates:
        raise UsageError(f"{len(thresholds)} thresholds for {gates} decisions: give one for each")
    if bad := [t for t in thresholds if not 0 <= t <= 1]:
        raise UsageError(f"thresholds {bad} are no probabilities: use values in [0, 1]")
