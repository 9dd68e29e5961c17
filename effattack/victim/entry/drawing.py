"""A victim that draws, as searches see it: means over draws, none of them a deployed one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from effattack.tasks import Classes
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.smoothed import joined
from effattack.victim.trace import Trace


class OverDraws(Victim):
    """A victim whose work, margins and gradients are means over draws of a search's own.

    Expectation over transformation (Athalye et al., "Synthesizing Robust Adversarial Examples",
    ICML 2018, arXiv 1707.07397); see :func:`effattack.victim.smoothed.joined`.

    Args:
        victim: the deployed one.
        draws: the same under seeds that none deployed has.
    """

    def __init__(self, victim: Victim, draws: Sequence[Victim]) -> None:
        super().__init__(**declared(victim))
        self.sees, self.counted = victim.sees, victim.counted
        self.draws = nn.ModuleList(draws)

    def forward(self, batch: Tensor) -> Tensor:
        return self.draws[0].forward(batch)

    def trace(self, batch: Tensor) -> Trace:
        found = [draw.trace(batch) for draw in self.draws]
        return joined(found, averages=isinstance(self.task, Classes))

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        return self.draws[0].ceiling(batch, count)
