"""What a search is where inputs are no arrays, by the kind of their domain."""

from __future__ import annotations

from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.parts import PartGradient, PartQueries
from effattack.attacks.searches.squares import RandomSearch
from effattack.attacks.searches.words import CoordinateGradient, RandomWords
from effattack.threats import Threat


def climbing(search: Climb, threat: Threat, seed: int) -> Climb:
    """A search by gradients, as inputs can be searched; ``seed`` is of its draws.

    Args:
        search: as it is on arrays.
        threat: in the domain of the inputs.
        seed: of prompts, of the candidates.

    Raises:
        NotApplicable: where the threat changes several parts of the inputs, or one that is no
            array.
    """
    if threat.domain.kind == "tokens":
        return CoordinateGradient.like(search, seed)
    return PartGradient.like(search, threat) if threat.domain.kind == "parts" else search


def asking(search: RandomSearch, threat: Threat) -> RandomSearch:
    """A search by queries, likewise."""
    if threat.domain.kind == "tokens":
        return RandomWords.like(search)
    return PartQueries.like(search, threat) if threat.domain.kind == "parts" else search
