"""A victim that draws, as searches see it: means over draws, none of them a deployed one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from effattack.domains import Batch
from effattack.tasks import Classes
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.trace import Gate, Trace


class OverDraws(Victim):
    """A randomised victim as searches see it: work is a mean over draws, and so are gradients.

    Every gate has the units of all draws, each at its share of the cost; so an objective that sums
    over units is a mean over draws (expectation over transformation; Athalye et al., ICML 2018,
    arXiv 1707.07397). Logits, those of stages and what losses of papers read (``aux``) are means;
    such losses read gates unit by unit, so where there are any, margins are means, too, over the
    draws in which a decision was reached.

    Args:
        victim: the deployed one.
        draws: the same under seeds that none deployed has.
    """

    def __init__(self, victim: Victim, draws: Sequence[Victim]) -> None:
        super().__init__(**declared(victim))
        self.sees, self.counted = victim.sees, victim.counted
        self.draws = nn.ModuleList(draws)

    def forward(self, batch: Batch) -> Tensor:
        return self.draws[0].forward(batch)

    def trace(self, batch: Batch) -> Trace:
        found = [draw.trace(batch) for draw in self.draws]
        return joined(found, averages=isinstance(self.task, Classes))

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        return self.draws[0].ceiling(batch, count)


def joined(traces: list[Trace], *, averages: bool) -> Trace:
    """One trace of the same inputs in several draws: their gates, and means of all else.

    Args:
        traces: one per draw.
        averages: whether outputs are numbers that have a mean; else the first draw's stand.
    """
    first = traces[0]
    gate = _mean_gate if first.aux else beside
    stages = [trace.stage_logits for trace in traces if trace.stage_logits is not None]
    slacks = [trace.slack for trace in traces if trace.slack is not None]
    return first._replace(
        logits=mean_of([trace.logits for trace in traces]) if averages else first.logits,
        gates=tuple(map(gate, zip(*(trace.gates for trace in traces), strict=True))),
        macs=mean_of([trace.macs for trace in traces]),
        stage_logits=mean_of(stages) if stages else None,
        aux={key: mean_of([trace.aux[key] for trace in traces]) for key in first.aux},
        also={key: mean_of([trace.also[key] for trace in traces]) for key in first.also},
        slack=torch.stack(slacks).amin(0) if slacks else None,
    )


def _mean_gate(draws: tuple[Gate, ...]) -> Gate:
    """Active where it is in half of the draws or more."""
    counted = torch.stack([gate.reached | gate.pushed for gate in draws])
    margins = torch.stack([gate.margin for gate in draws]).where(counted, 0)
    active = torch.stack([gate.active for gate in draws]).double().mean(0) >= 0.5
    return draws[0]._replace(
        margin=margins.sum(0) / counted.sum(0).clamp(min=1),
        active=active,
        reached=torch.stack([gate.reached for gate in draws]).any(0),
    )


def beside(draws: tuple[Gate, ...]) -> Gate:
    """The units of all draws, each at its share of the cost."""
    shares = 1 / len(draws)
    costs = [torch.as_tensor(g.cost).to(g.margin).expand_as(g.margin) * shares for g in draws]
    return draws[0]._replace(
        margin=torch.cat([gate.margin for gate in draws], 1),
        active=torch.cat([gate.active for gate in draws], 1),
        reached=torch.cat([gate.reached for gate in draws], 1),
        cost=torch.cat(costs, 1),
    )


def mean_of(values: list[Tensor]) -> Tensor:
    """Of numbers; of others, which have no mean, the first."""
    if not values[0].is_floating_point():
        return values[0]
    return torch.stack(values).mean(0)
