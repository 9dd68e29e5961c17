"""The latency query attack: nothing is known of the model but how long it takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack
from effattack.attacks.objectives import Goal, Step
from effattack.attacks.searches.squares import Squares
from effattack.errors import UsageError
from effattack.measure.clocks import Clock, WallClock, deployed
from effattack.measure.latency import quadruple, warm_up
from effattack.measure.statistics import median_ratio
from effattack.threats import ArrayThreat


class LatencyQuery(Attack):
    """Random search over squares, with measured time as the oracle, one image at a time.

    For where not even the work is known: it sees the time of the deployed path and nothing else,
    on every victim, :class:`effattack.Opaque` included. A proposal that looks slower than the
    incumbent in one paired reading is only a candidate: it is taken if the interval of the time
    ratio over ``confirm`` fresh paired readings lies above 1. The winner is measured afresh against
    the clean image, and the clean image is returned where it does not hold. The best of many noisy
    readings is never taken for a result.

    The proposals are those of :mod:`effattack.attacks.searches.squares`.

    Args:
        victim: any victim.
        eps: l-inf budget in [0, 1] pixels.
        threat: another budget, in place of ``eps``.
        queries: proposals per image, each of four calls of the victim.
        confirm: fresh paired readings of four calls that decide; 6 is the fewest with a 95 %
            interval.
        first_square: share of the image that the first squares cover.
        clock: what reads the time; by default the wall clock of the victim's device.
        seed: of the proposals.

    Raises:
        UsageError: for fewer than one query or six readings.
    """

    knowledge = "queries"
    threat: ArrayThreat

    queries: int = 50
    confirm: int = 8
    first_square: float = 0.3
    clock: Clock | None = None

    def prepare(self) -> None:
        if self.queries < 1 or self.confirm < 6:
            raise UsageError(
                f"queries = {self.queries}, confirm = {self.confirm}: use at least 1 and 6; fewer "
                "readings have no 95 % interval"
            )
        self.squares = Squares(self.first_square)

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        placed = self.threat.placed(clean, generator)
        found = []
        with deployed(self.victim, clean[:1]):
            for row in torch.arange(len(clean)).split(1):
                mine = goal.rows(row.to(clean.device))
                found.append(self._slowest(clean[row], placed.rows(row), mine, generator))
        return torch.cat(found)

    def _slowest(
        self, clean: Tensor, threat: ArrayThreat, goal: Goal, generator: Generator
    ) -> Tensor:
        """The search on one input."""
        clock, best = self.clock or WallClock(clean.device), clean
        warm_up(clock, [(self._call(clean), self._call(clean))])
        unknown = torch.full((1,), torch.nan, dtype=torch.float64)
        for query in range(self.queries):
            if query == 0:
                found = self.squares.stripes(clean, threat, generator)
            else:
                progress = query / self.queries
                found = self.squares.painted(best, clean, threat, progress, generator)
            before, now = quadruple(clock, self._call(best), self._call(found))
            if now > before and self._slower(clock, found, best):
                best = found
            goal.callback(Step(0, query, self.queries, unknown, torch.tensor([now])))
        return best if best is clean or self._slower(clock, best, clean) else clean

    def _slower(self, clock: Clock, found: Tensor, best: Tensor) -> bool:
        """Whether fresh paired readings say so: the interval of their ratio lies above 1."""
        pairs = [
            quadruple(clock, self._call(best), self._call(found), mirrored=turn % 2 == 1)
            for turn in range(self.confirm)
        ]
        before, now = zip(*pairs, strict=True)
        if min(*before, *now) <= 0:
            return False  # the clock is too coarse to have moved
        return median_ratio(now, before).low > 1

    def _call(self, images: Tensor) -> Callable[[], Tensor]:
        run: Callable[[Tensor], Tensor] = self.victim
        return partial(run, images)
