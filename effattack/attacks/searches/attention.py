"""How Overload looks: full steps where an image holds least, half steps elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks.searches.memory import Memory
from effattack.attacks.searches.projected import ProjectedGradient
from effattack.errors import UsageError
from effattack.threats import ArrayThreat
from effattack.victim import Trace
from effattack.victim.proposing import Proposals, proposals_of


@dataclass(frozen=True)
class Attentive(ProjectedGradient):
    """Projected gradient whose steps are halved outside the cell with the fewest boxes.

    Args:
        steps, schedule, momentum: see :class:`.projected.ProjectedGradient`.
        grid: cells along either side of an image.
    """

    grid: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.grid < 1:
            raise UsageError(f"grid = {self.grid}: give a whole number of at least 1")

    def moved(
        self, iterate: Tensor, memory: Memory, size: float, threat: ArrayThreat, trace: Trace
    ) -> Tensor:
        step = super().moved(iterate, memory, size, threat, trace) - iterate
        return iterate + attention(proposals_of(trace), iterate.shape[-2:], self.grid) * step


def attention(found: Proposals, size: tuple[int, int] | torch.Size, grid: int) -> Tensor:
    """(B, 1, height, width): 1 in the first cell that the fewest boxes handed on reach into, 1/2
    elsewhere.

    Args:
        found: what is proposed.
        size: height and width in pixels.
        grid: cells along either side.
    """
    edges = torch.linspace(0, 1, grid + 1).to(found.boxes)
    first, last = ((found.boxes[..., k : k + 2] / found.sides[:, None]) for k in (0, 2))
    within = (first[..., None] < edges[1:]) & (last[..., None] > edges[:-1])
    across, down = within.to(edges).unbind(2)
    counts = torch.einsum("bn,bny,bnx->byx", found.handed_on.to(edges), down, across)
    emptiest = counts.flatten(1).argmin(1)
    rows, columns = (torch.arange(side, device=counts.device) * grid // side for side in size)
    cells = rows[:, None] * grid + columns
    return (1 + (cells == emptiest[:, None, None, None]).to(edges)) / 2
