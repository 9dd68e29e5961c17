"""How attacks on inputs of several parts look: in the one part that may change, as in its domain.

The search sees a victim of that part alone, whose other parts stay as they are in the clean inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.best import Best
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.squares import RandomSearch
from effattack.domains import Arrays, Parts, PartsBatch
from effattack.errors import NotApplicable
from effattack.threats import Threat
from effattack.threats.parts import OfParts
from effattack.victim import Trace, Victim


class OnePart(Victim):
    """A victim of one part, its other parts those of some inputs.

    Args:
        victim: of all parts.
        part: the name of the one.
        rest: (B) inputs; what it is given are as many.
    """

    def __init__(self, victim: Victim, part: str, rest: PartsBatch) -> None:
        assert isinstance(victim.domain, Parts)
        super().__init__(
            name=victim.name,
            family=victim.family,
            domain=victim.domain.parts[part],
            task=victim.task,
            max_macs=victim.max_macs,
            counts=victim.counts,
            currency=victim.currency,
        )
        self.whole, self.part, self.rest = victim, part, rest

    def forward(self, batch: Tensor) -> Tensor:
        return self.whole(self.rest.replaced(**{self.part: batch}))

    def trace(self, batch: Tensor) -> Trace:
        return self.whole.trace(self.rest.replaced(**{self.part: batch}))


@dataclass(frozen=True)
class PartGradient(Climb):
    """A search on arrays, in one part.

    Inputs at their ceiling are searched on, as the others of their batch are.

    Args:
        steps, random_start, restarts, accept, ask: see :class:`Climb`.
        search: the one on arrays.
        part: where.
    """

    search: Climb
    part: str

    @classmethod
    def like(cls, search: Climb, threat: Threat) -> Self:
        """The search, in the part that a threat changes."""
        return cls(
            search.steps,
            search=search,
            part=changed_part(threat),
            random_start=search.random_start,
            restarts=search.restarts,
            accept=search.accept,
            ask=search.ask,
        )

    def climb(
        self,
        best: Best,
        start: PartsBatch,
        clean: PartsBatch,
        threat: Any,
        objective: Objective,
        goal: Goal,
        restart: int = 0,
    ) -> None:
        name = self.part
        inside = Best(best.inputs[name], best.rank)
        place, alone = threat.threats[name], seen(goal, name, clean)
        self.search.climb(inside, start[name], clean[name], place, objective, alone, restart)
        best.inputs, best.rank = best.inputs.replaced(**{name: inside.inputs}), inside.rank


@dataclass(frozen=True)
class PartQueries(RandomSearch):
    """A random search on arrays, in one part.

    Args:
        queries, squares, accept: see :class:`RandomSearch`.
        part: where.
    """

    part: str = ""

    @classmethod
    def like(cls, search: RandomSearch, threat: Threat) -> Self:
        """The search, in the part that a threat changes."""
        return cls(search.queries, search.squares, search.accept, changed_part(threat))

    def climb(
        self,
        best: Best,
        clean: PartsBatch,
        threat: Any,
        goal: Goal,
        generator: Any,
        restart: int = 0,
    ) -> None:
        name = self.part
        inside = Best(best.inputs[name], best.rank)
        place, alone = threat.threats[name], seen(goal, name, clean)
        super().climb(inside, clean[name], place, alone, generator, restart)
        best.inputs, best.rank = best.inputs.replaced(**{name: inside.inputs}), inside.rank


def seen(goal: Goal, part: str, clean: PartsBatch) -> Goal:
    """A goal of inputs of several parts, for a search of one of them."""
    victim = OnePart(goal.victim, part, clean)
    return Goal(victim, goal.logits, goal.labels, goal.callback)


def changed_part(threat: Threat) -> str:
    """The name of the one part of arrays that a threat changes.

    Raises:
        NotApplicable: if it changes several, or one of another kind.
    """
    threats = threat.threats if isinstance(threat, OfParts) else {}
    if len(threats) != 1:
        raise NotApplicable(f"{threat} changes {len(threats)} parts: searches change one; name it")
    ((name, inner),) = threats.items()
    if not isinstance(inner.domain, Arrays):
        raise NotApplicable(
            f"{threat} changes {inner.domain.nouns}: searches change a part of arrays; name one"
        )
    return name
