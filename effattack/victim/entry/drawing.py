"""An entry that draws, as searches see it: means over draws, none of them a deployed one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from effattack.tasks import Classes
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.smoothed import joined
from effattack.victim.trace import Trace

if TYPE_CHECKING:
    from effattack.victim.entry.entry import Entry


class OverDraws(Victim):
    """An entry whose work, margins and gradients are means over draws of a search's own.

    Expectation over transformation (Athalye et al., "Synthesizing Robust Adversarial Examples",
    ICML 2018, arXiv 1707.07397); see :func:`effattack.victim.smoothed.joined`.

    Args:
        entry: the victim, some of whose steps draw.
        seed: of the search; its draws differ from those of any deployed seed.
    """

    def __init__(self, entry: Entry, seed: int) -> None:
        super().__init__(**declared(entry))
        self.sees, self.counted = entry.sees, entry.counted
        self.entry, self.seed = entry, seed

    def forward(self, batch: Tensor) -> Tensor:
        return self.entry.victim(self._opened(batch, 0))

    def trace(self, batch: Tensor) -> Trace:
        found = joined(
            [
                self.entry.victim.trace(self._opened(batch, draw))
                for draw in range(self.entry.draws)
            ],
            averages=isinstance(self.task, Classes),
        )
        return self.entry.told(found, batch)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        return self.entry.ceiling(batch, count)

    def _opened(self, batch: Tensor, draw: int) -> Tensor:
        return self.entry.opened(batch, f"search {self.seed} {draw}")
