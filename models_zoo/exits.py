"""What early exits and cascades share: stages in a row, each of which may be the last."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effattack.models_zoo.criteria import Confidence, Criterion
from effattack.victim import Gate, Trace


def first_exit(margins: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Margins of going on past each stage but the last -> (active, reached), each (B, stages - 1).

    A stage is reached if all before it were passed; active, if it is passed itself. Decisions
    (B,) bool may stand in the place of margins.
    """
    onward = torch.stack([margin > 0 for margin in margins], dim=1)
    active = onward.cumprod(1).bool()
    reached = torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], dim=1)
    return active, reached


def criterion_trace(
    criterion: Criterion,
    stage_logits: Tensor,
    names: Sequence[str],
    cumulative_macs: Sequence[float],
    unsure: Tensor | None = None,
) -> Trace:
    """The trace of stages in a row under a criterion.

    Args:
        criterion: decides after each stage but the last.
        stage_logits: (B, stages, classes), of all stages.
        names: of the gates, one per stage but the last.
        cumulative_macs: MACs of leaving at each stage.
        unsure: (B, classes), the answer where no stage stopped; by default the last stage's.
    """
    so_far = [stage_logits[:, : k + 1] for k in range(len(names))]
    trace = chain_trace(
        stage_logits,
        margins=[criterion.margin(seen) for seen in so_far],
        names=names,
        cumulative_macs=cumulative_macs,
        decisions=[criterion.go_on(seen) for seen in so_far],
        proxy=criterion.proxy,
    )
    logits = trace.logits
    if unsure is not None:
        logits = torch.where(trace.gates[-1].active[:, None], unsure, logits)
    return trace._replace(logits=logits, gates=trace.gates[criterion.earliest :])


def chain_trace(
    stage_logits: Tensor,
    margins: Sequence[Tensor],
    names: Sequence[str],
    cumulative_macs: Sequence[float],
    decisions: Sequence[Tensor] | None = None,
    proxy: bool = False,
) -> Trace:
    """The trace of stages in a row.

    Args:
        stage_logits: (B, stages, classes), of all stages.
        margins: of going on past each stage but the last, each (B,).
        names: of those gates.
        cumulative_macs: MACs of leaving at each stage.
        decisions: to go on, each (B,) bool; by default the signs of the margins.
        proxy: the signs of the margins are not the decisions.
    """
    active, reached = first_exit(margins if decisions is None else decisions)
    taken = active.sum(1)
    spent = torch.tensor(cumulative_macs, dtype=torch.float64, device=taken.device)
    gates = tuple(
        Gate(
            name=name,
            margin=margin,
            active=active[:, k],
            reached=reached[:, k],
            cost=float(cumulative_macs[-1] - cumulative_macs[k]),
            proxy=proxy,
            pushed=True,
        )
        for k, (name, margin) in enumerate(zip(names, margins, strict=True))
    )
    logits = stage_logits[torch.arange(len(taken), device=taken.device), taken]
    return Trace(logits=logits, gates=gates, macs=spent[taken], stage_logits=stage_logits)


def lowest_threshold(stage_logits: Tensor, labels: Tensor, drop: float = 0.005) -> float:
    """The lowest confidence threshold whose accuracy is within ``drop`` of the last stage's.

    Args:
        stage_logits: (B, stages, classes) on held-out images.
        labels: (B,).
    """
    floor = (stage_logits[:, -1].argmax(1) == labels).double().mean() - drop
    rows = torch.arange(len(labels))
    for percent in range(1, 100):
        criterion = Confidence(percent / 100)
        internal = range(stage_logits.shape[1] - 1)
        margins = [criterion.margin(stage_logits[:, : k + 1]) for k in internal]
        answers = stage_logits[rows, first_exit(margins)[0].sum(1)].argmax(1)
        if (answers == labels).double().mean() >= floor:
            return percent / 100
    return 1.0
