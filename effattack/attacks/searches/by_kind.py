"""What a search is where inputs are no arrays, by the kind of their domain."""

from __future__ import annotations

from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.squares import RandomSearch
from effattack.attacks.searches.words import CoordinateGradient, RandomWords
from effattack.victim import Victim


def climbing(search: Climb, victim: Victim, seed: int) -> Climb:
    """A search by gradients, as inputs of the victim can be searched; ``seed`` is of its draws."""
    if victim.domain.kind == "tokens":
        return CoordinateGradient.like(search, seed)
    return search


def asking(search: RandomSearch, victim: Victim) -> RandomSearch:
    """A search by queries, likewise."""
    return RandomWords.like(search) if victim.domain.kind == "tokens" else search
