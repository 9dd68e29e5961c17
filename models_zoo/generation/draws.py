"""A generator that draws, as searches see it: means over texts, none of them a deployed one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effattack.victim import Trace, Victim
from effattack.victim.draws import OverDraws, beside, mean_of
from effattack.victim.leaf import Leaf
from effattack.victim.writing import Writes

DRAWS = 4
"""Texts of each prompt, unless more are asked for."""


class OverTexts(OverDraws):
    """A generator that draws, its work a mean over several texts of each prompt.

    The gate has the steps of all texts, each at its share of the cost, so that the house objective
    is a mean over draws as well. Answers, and what the losses of papers read, are of the first
    text alone: they break ties between prompts of equal mean work.

    Args:
        victim: the deployed generator.
        draws: the same under seeds that none deployed has.
    """

    def __init__(self, victim: Victim, draws: Sequence[Victim]) -> None:
        super().__init__(victim, draws)
        assert isinstance(draws[0], Writes)
        self.cap, self.vocabulary = draws[0].cap, draws[0].vocabulary

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        found = [draw.trace(batch, leaf=leaf) for draw in self.draws]
        slacks = [trace.slack for trace in found if trace.slack is not None]
        return found[0]._replace(
            gates=tuple(map(beside, zip(*(trace.gates for trace in found), strict=True))),
            macs=mean_of([trace.macs for trace in found]),
            also={
                count: mean_of([trace.also[count] for trace in found]) for count in found[0].also
            },
            slack=torch.stack(slacks).amin(0),
        )

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        """Embedding rows of places in the user's part."""
        return self.draws[0].lift(batch, places)

    def continued(
        self, batch: Tensor, text: Tensor, leaf: Leaf | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the model says has no draw in it."""
        return self.draws[0].continued(batch, text, leaf)

    def read_by(self, written: Tensor) -> Tensor:
        """Rows of the tokens that were read to write texts."""
        return self.draws[0].read_by(written)
