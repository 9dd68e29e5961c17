"""Several victims as one: what an attacker sees who does not know which of them is deployed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.attacks.objectives import Goal, Objective
from effattack.errors import UsageError
from effattack.victim import Trace, Victim


class Several(Victim):
    """Victims that all compute the same image: their MACs add up, their classes stand in a row.

    Gates and ``aux`` of the k-th member are called ``k/name``.

    Args:
        members: of one input shape.

    Raises:
        UsageError: if their images differ in shape, device or dtype.
    """

    def __init__(self, members: Sequence[Victim]) -> None:
        first = members[0]
        super().__init__(
            name=" + ".join(member.name for member in members),
            family=first.family,
            input_shape=first.input_shape,
            num_classes=sum(member.num_classes for member in members),
            max_macs=sum(member.max_macs for member in members),
            dense_macs=sum(member.dense_macs for member in members),
        )
        self.members = nn.ModuleList(members)
        for other in members:
            if fed(other) != fed(first):
                raise UsageError(
                    f"{other.name} takes {fed(other)}, {first.name} takes {fed(first)}: victims "
                    "that share an attack must take the same images"
                )

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([member(images) for member in self.members], 1)

    def trace(self, images: Tensor) -> Trace:
        traces: list[Trace] = [member.trace(images) for member in self.members]
        return Trace(
            logits=torch.cat([trace.logits for trace in traces], 1),
            gates=tuple(
                gate._replace(name=f"{k}/{gate.name}")
                for k, trace in enumerate(traces)
                for gate in trace.gates
            ),
            macs=sum((trace.macs for trace in traces[1:]), traces[0].macs),
            aux={f"{k}/{n}": v for k, trace in enumerate(traces) for n, v in trace.aux.items()},
        )

    def split(self, trace: Trace, goal: Goal) -> list[tuple[Trace, Goal]]:
        """Of every member its own trace (with the MACs of all) and goal."""
        classes = [member.num_classes for member in self.members]
        logits, clean = trace.logits.split(classes, 1), goal.logits.split(classes, 1)
        parts = []
        for k, member in enumerate(self.members):
            mark = f"{k}/"
            gates = [g for g in trace.gates if g.name.startswith(mark)]
            part = Trace(
                logits=logits[k],
                gates=tuple(g._replace(name=g.name.removeprefix(mark)) for g in gates),
                macs=trace.macs,
                aux={n.removeprefix(mark): v for n, v in trace.aux.items() if n.startswith(mark)},
            )
            parts.append((part, Goal(member, clean[k], goal.labels)))
        return parts


@dataclass(frozen=True)
class OneAtATime:
    """The loss of one member, drawn anew at every step, minus λ · mean cross-entropy of all.

    Args:
        slow: the objective of every member; the draw is from torch's global random state, which
            an attack seeds.
        weight: λ, of the cross-entropies to the members' own clean predictions.
    """

    slow: Objective
    weight: float

    def check(self, trace: Trace, victim: Victim) -> None:
        assert isinstance(victim, Several)
        goal = Goal(victim, trace.logits, victim.task.answer(trace.logits))
        for part, its in victim.split(trace, goal):
            self.slow.check(part, its.victim)

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        assert isinstance(goal.victim, Several)
        parts = goal.victim.split(trace, goal)
        drawn = parts[int(torch.randint(len(parts), ()))]
        losses = [F.cross_entropy(p.logits, g.answer, reduction="none") for p, g in parts]
        return self.slow(*drawn) - self.weight * torch.stack(losses).mean(0)


def fed(victim: Victim) -> str:
    """What a victim takes: "(3, 32, 32) torch.float32 on cpu"."""
    return f"{victim.input_shape} {victim.dtype} on {victim.device}"
