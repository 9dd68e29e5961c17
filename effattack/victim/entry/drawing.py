"""Steps that draw: one draw decides, gradients are means over several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effattack.victim.entry.steps import Valued
from effattack.victim.trace import Gate, Trace


def averaged(traces: Sequence[Trace]) -> Trace:
    """The first of several traces of the same files, with the mean of their gradients.

    A margin counts in those draws in which its decision was reached.
    """
    first, *_ = traces
    gates = zip(*(trace.gates for trace in traces), strict=True)
    stages = [trace.stage_logits for trace in traces if trace.stage_logits is not None]
    return first._replace(
        logits=_as_first([trace.logits for trace in traces]),
        stage_logits=_as_first(stages) if stages else None,
        gates=tuple(map(_gate, gates)),
    )


def _gate(draws: tuple[Gate, ...]) -> Gate:
    first, *_ = draws
    counted = [gate.reached | gate.pushed for gate in draws]
    margins = [gate.margin.where(kept, 0) for gate, kept in zip(draws, counted, strict=True)]
    times = torch.stack(counted).sum(0).clamp(min=1)
    mean = torch.stack(margins).sum(0) / times
    return first._replace(margin=Valued.apply(mean, first.margin.detach()))


def _as_first(values: Sequence[Tensor]) -> Tensor:
    return Valued.apply(torch.stack(list(values)).mean(0), values[0].detach())
