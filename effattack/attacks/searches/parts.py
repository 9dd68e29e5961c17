"""How attacks on inputs of several parts look: in one part after another, each as in its domain.

A search of one part sees a victim of that part alone, whose other parts stay as they are best so
far. Budgets in several parts are spent in turn (block coordinate ascent): what one part gained is
where the next begins.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from torch import Generator, Tensor

from effattack.attacks.objectives import Goal, Objective
from effattack.attacks.searches.best import Best
from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.squares import RandomSearch
from effattack.domains import Parts, PartsBatch
from effattack.errors import GradientError, NotApplicable
from effattack.threats import Threat
from effattack.threats.parts import OfParts
from effattack.victim import Trace, Victim
from effattack.victim.leaf import Leaf
from effattack.victim.writing import Writes

TURNS = 2
"""How often each of several parts is searched."""


class OnePart(Victim):
    """A victim of one part, its other parts those of some inputs; it writes if that of all does.

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
        if isinstance(victim, Writes):
            self.cap, self.vocabulary = victim.cap, victim.vocabulary
            self.continued, self.read_by = victim.continued, victim.read_by

    def forward(self, batch: Tensor) -> Tensor:
        return self.whole(self._with(batch))

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        lifted: Any = self.whole.trace
        trace = lifted(self._with(batch), **({} if leaf is None else {"leaf": leaf}))
        return hearing(trace, batch if leaf is None else leaf.rows)

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        return self.whole.lift(batch, places)

    def rows(self, index: Tensor) -> OnePart:
        """The same beside some of the inputs."""
        other = copy.copy(self)
        other.rest = self.rest[index]
        return other

    def _with(self, batch: Tensor) -> PartsBatch:
        return self.rest.replaced(**{self.part: batch})


@dataclass(frozen=True)
class Alone(Goal):
    """A goal of inputs of several parts, for a search of one of them."""

    victim: OnePart

    def rows(self, index: Tensor) -> Alone:
        found = vars(super().rows(index))
        return Alone(**{**found, "victim": self.victim.rows(index)})


@dataclass(frozen=True, kw_only=True)
class PartsInTurn(Climb):
    """Searches by gradients, one per part that may change.

    A part on which no decision hangs is left to the others.

    Args:
        steps, random_start, restarts, accept, ask: see :class:`Climb`.
        searches: name of a part -> how it is looked for, ``turns`` times.
        turns: how often each has its turn.

    Raises:
        GradientError: where no decision hangs on any of the parts.
    """

    searches: Mapping[str, Climb]
    turns: int

    @classmethod
    def like(cls, search: Climb, searches: Mapping[str, Climb]) -> Self:
        """What a search on arrays is on parts, its steps shared among them."""
        return cls(
            search.steps,
            random_start=search.random_start,
            restarts=search.restarts,
            accept=search.accept,
            ask=search.ask,
            searches=searches,
            turns=turns(len(searches)),
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
        heard = dict(self.searches)
        for turn in range(self.turns):
            for part, search in [*heard.items()]:
                inside, alone = Best(best.inputs[part], best.rank), seen(goal, part, best)
                first = start[part] if turn == 0 else inside.inputs.clone()
                place = threat.threats[part]
                try:
                    search.climb(inside, first, clean[part], place, objective, alone, restart)
                except GradientError as error:
                    del heard[part]
                    if not heard:
                        raise GradientError(unheard(goal.victim, [*self.searches])) from error
                    continue
                take(best, part, inside)


@dataclass(frozen=True, kw_only=True)
class PartsAsked(RandomSearch):
    """Searches by queries, one per part that may change.

    Args:
        queries, squares, accept: see :class:`RandomSearch`.
        searches: name of a part -> how it is looked for, ``turns`` times.
        turns: how often each has its turn.
    """

    searches: Mapping[str, RandomSearch]
    turns: int

    def climb(
        self,
        best: Best,
        clean: PartsBatch,
        threat: Any,
        goal: Goal,
        generator: Generator,
        restart: int = 0,
    ) -> None:
        for _ in range(self.turns):
            for part, search in self.searches.items():
                inside, alone = Best(best.inputs[part], best.rank), seen(goal, part, best)
                place = threat.threats[part]
                search.climb(inside, clean[part], place, alone, generator, restart)
                take(best, part, inside)


def seen(goal: Goal, part: str, best: Best) -> Alone:
    """What the search of a part refers to: the others are as they are best so far."""
    victim = OnePart(goal.victim, part, best.inputs)
    return Alone(victim, goal.logits, goal.labels, goal.callback, goal.ceiling)


def hearing(trace: Trace, part: Tensor) -> Trace:
    """Gates that hang on other parts alone have a gradient in this one, too: zero, not none.

    As it is where no gate hangs on this part at all.
    """
    if not (part.requires_grad and any(gate.margin.requires_grad for gate in trace.gates)):
        return trace
    nothing = 0 * part.flatten(1).sum(1, keepdim=True)
    gates = (
        gate if gate.margin.requires_grad else gate._replace(margin=gate.margin + nothing)
        for gate in trace.gates
    )
    return trace._replace(gates=tuple(gates))


def unheard(victim: Victim, parts: Sequence[str]) -> str:
    """What is said where gradients of parts move nothing."""
    return (
        f"{victim.name}: no gradient of its decisions reaches {' or '.join(parts)}: if they hang "
        "on other parts alone, name one of those, or ask by QueryAttack; else compute margins in "
        "trace() without detach or no_grad"
    )


def take(best: Best, part: str, inside: Best) -> None:
    """What the search of a part found becomes the best of the whole."""
    best.inputs, best.rank = best.inputs.replaced(**{part: inside.inputs}), inside.rank


def turns(parts: int) -> int:
    """How often each of so many parts is searched: a single one once, with all that there is."""
    return TURNS if parts > 1 else 1


def changed_parts(threat: Threat) -> dict[str, Threat]:
    """The parts that a threat changes, and what of each.

    Raises:
        NotApplicable: if it changes none.
    """
    if not isinstance(threat, OfParts):
        raise NotApplicable(f"{threat} changes no part: name one, such as image:linf:8/255")
    return threat.threats
