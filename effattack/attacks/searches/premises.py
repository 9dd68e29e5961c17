"""How attacks by whole premises look: what is added to a prompt is made of some that are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Generator, Tensor

from effattack.attacks.objectives import BatchGoal, Objective
from effattack.attacks.searches.best import Acceptance, Best, ranked
from effattack.attacks.searches.words import AT_ONCE, widen
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.threats.edits import Added

Premise = tuple[int, ...]
"""The tokens of one."""
Premises = tuple[Premise, ...]
"""What is added to one prompt."""
TRIES = 16
"""How often a child that was judged before is mutated, until it is new."""


@dataclass
class Judge:
    """Runs candidates of every prompt of a batch, and keeps the best by executed work.

    Args:
        clean: the prompts (B, L).
        threat: where premises are added, and how many tokens.
        objective: breaks ties.
        goal: of the attack.
        accept: which candidates count; None: all.
    """

    clean: Tensor
    threat: Added
    objective: Objective
    goal: BatchGoal
    accept: Acceptance | None = None

    def __post_init__(self) -> None:
        self.best = Best.of(self.clean, self.goal)
        self.wide = widen(self.best, self.clean, self.threat)

    def __call__(self, found: Sequence[Sequence[Premises]]) -> list[list[tuple[bool, float]]]:
        """For each prompt equally many candidates -> for each whether it counts, and its value."""
        rows = torch.arange(len(found), device=self.clean.device)
        each = max(1, AT_ONCE // len(found))
        fitness: list[list[tuple[bool, float]]] = [[] for _ in found]
        for first in range(0, len(found[0]), each):
            some = [mine[first : first + each] for mine in found]
            index = rows.repeat_interleave(len(some[0]))
            words = self._words([premises for mine in some for premises in mine])
            centre = self.clean[index]
            inputs = self.threat.on_grid(self.threat.added(centre, words), centre)
            inputs = self.goal.victim.domain.join([inputs, self.best.inputs])[: len(inputs)]
            goal = self.goal.rows(index)
            with torch.no_grad():
                trace = self.goal.victim.trace(inputs)
            rank = ranked(trace, goal, self.objective(trace, goal), accept=self.accept)
            for place in range(len(some[0])):
                own = rows * len(some[0]) + place
                self.best.update(rows, inputs[own], rank.rows(own))
            told = zip(index, rank.work > -torch.inf, rank.value, strict=True)
            for row, counts, value in told:
                fitness[int(row)].append((bool(counts), float(value)))
        return fitness

    def _words(self, found: Sequence[Premises]) -> Tensor:
        """(n, k) ids, padded."""
        rows = [torch.tensor(sum(premises, ()), dtype=torch.long) for premises in found]
        words = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        return words.to(self.clean.device)


def concatenated(bank: Sequence[Premise], room: int, chance: Random) -> Iterator[Premises]:
    """Every premise of a bank that there is room for by itself, then some of them in a row, drawn
    until no more would fit; endless, and no more than nothing where none fits."""
    fitting = [premise for premise in bank if len(premise) <= room]
    yield from ((premise,) for premise in fitting)
    while True:
        found: Premises = ()
        while more := [each for each in fitting if len(each) <= room - size(found)]:
            found += (chance.choice(more),)
        yield found


def size(premises: Premises) -> int:
    """Tokens of all."""
    return sum(map(len, premises))


@dataclass(frozen=True)
class PremiseEvolution:
    """Breeds premises for every prompt by itself.

    The pool begins with :func:`concatenated` premises. Parents are drawn from its better half; a
    child is the beginning of one and the end of another, or one of them. It is mutated at random,
    and always if it was judged before: a premise of the bank comes in, one goes, or one token of
    one becomes another that can be written. What does not fit any more goes from the end. The best
    of parents and children are the next pool; those that do not count come last.

    Args:
        pool: members, each prompt.
        generations: bred behind the first pool.
        crossover: share of children of two parents.
        mutation: share of children that are mutated, new or not.

    Raises:
        UsageError: for a pool that cannot breed, or shares that are none.
    """

    pool: int
    generations: int
    crossover: float
    mutation: float

    def __post_init__(self) -> None:
        if self.pool < 2 or self.generations < 1:
            raise UsageError(
                f"pool = {self.pool} and generations = {self.generations}: a pool needs at least "
                "2 members and one generation"
            )
        if not (0 <= self.crossover <= 1 and 0 <= self.mutation <= 1):
            raise UsageError(
                f"crossover = {self.crossover} and mutation = {self.mutation} are shares: give "
                "numbers between 0 and 1"
            )

    def __call__(self, judge: Judge, bank: Sequence[Premise], generator: Generator) -> Tensor:
        """The best prompts found, (B, L), inside the threat."""
        chance = Random(int(torch.randint(2**31, (), generator=generator)))
        rooms = judge.threat.room(judge.clean).tolist()
        words = judge.threat.words()
        lines = [_Line(self, bank, words, room, Random(chance.random())) for room in rooms]
        for generation in range(1 + self.generations):
            found = [line.bred() for line in lines]
            for line, members, fitness in zip(lines, found, judge(found), strict=True):
                line.survive(members, fitness)
            judge.goal.callback(judge.best.step(0, generation, self.generations))
        return judge.best.inputs


class _Line:
    """The pool of one prompt."""

    def __init__(
        self,
        search: PremiseEvolution,
        bank: Sequence[Premise],
        words: Sequence[int],
        room: int,
        chance: Random,
    ) -> None:
        self.search, self.bank, self.words = search, bank, words
        self.room, self.chance = room, chance
        self.members: list[Premises] = []
        self.fitness: list[tuple[bool, float]] = []
        self.judged: set[Premises] = set()

    def bred(self) -> list[Premises]:
        """As many members as a pool has, to be judged."""
        first = concatenated(self.bank, self.room, self.chance)
        found = [
            self._new(self._child() if self.members else next(first))
            for _ in range(self.search.pool)
        ]
        return found

    def survive(self, members: Sequence[Premises], fitness: Sequence[tuple[bool, float]]) -> None:
        """The best of the pool and its children stay, those that were there first before others."""
        both = [*zip(self.fitness, self.members, strict=True), *zip(fitness, members, strict=True)]
        both.sort(key=lambda member: member[0], reverse=True)
        del both[self.search.pool :]
        self.fitness, self.members = [fit for fit, _ in both], [each for _, each in both]

    def _new(self, child: Premises) -> Premises:
        for _ in range(TRIES):
            if child not in self.judged:
                break
            child = self._mutated(child)
        self.judged.add(child)
        return child

    def _child(self) -> Premises:
        parents = self.members[: max(2, self.search.pool // 2)]
        child, other = self.chance.choices(parents, k=2)
        if self.chance.random() < self.search.crossover:
            cut = self.chance.randint(0, len(child))
            child = child[:cut] + other[self.chance.randint(0, len(other)) :]
        mutated = self.chance.random() < self.search.mutation
        return self._fitting(self._mutated(child) if mutated else child)

    def _mutated(self, child: Premises) -> Premises:
        place = self.chance.randint(0, len(child))
        kind = self.chance.choice(("add", "remove", "rewrite")) if child else "add"
        if kind == "add":
            return self._fitting((*child[:place], self.chance.choice(self.bank), *child[place:]))
        place = min(place, len(child) - 1)
        if kind == "remove":
            return child[:place] + child[place + 1 :]
        premise = list(child[place])
        premise[self.chance.randrange(len(premise))] = self.chance.choice(self.words)
        return (*child[:place], tuple(premise), *child[place + 1 :])

    def _fitting(self, child: Premises) -> Premises:
        while size(child) > self.room:
            child = child[:-1]
        return child
