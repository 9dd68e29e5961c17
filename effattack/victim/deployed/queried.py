"""An artefact as those see it who only query it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from effattack.domains import Batch
from effattack.victim.around import declared
from effattack.victim.contract import Victim
from effattack.victim.trace import Trace


class Queried(Victim):
    """Answers and work of an artefact; no gates, no gradients.

    Args:
        artefact: whose they are.
        as_ran: a batch -> what it shows from outside.
    """

    sees = "answers"

    def __init__(self, artefact: Victim, as_ran: Callable[[Batch], Trace]) -> None:
        super().__init__(**declared(artefact))
        self.artefact, self.as_ran = artefact, as_ran

    def forward(self, batch: Batch) -> Tensor:
        return self.artefact(batch)

    def trace(self, batch: Batch) -> Trace:
        return self.as_ran(batch)

    def ceiling(self, batch: Batch, count: str = "macs") -> Tensor:
        return self.artefact.ceiling(batch, count)
