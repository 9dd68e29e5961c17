"""What a search is where inputs are no arrays, by the kind of their domain."""

from __future__ import annotations

from dataclasses import replace

from effattack.attacks.searches.climbing import Climb
from effattack.attacks.searches.parts import PartsAsked, PartsInTurn, changed_parts, turns
from effattack.attacks.searches.squares import RandomSearch
from effattack.attacks.searches.words import CoordinateGradient, RandomWords
from effattack.threats import Threat

WORDS = ("tokens", "graph")
"""Kinds of domains whose inputs are rows of ids: words of a prompt, edges of a neighbourhood."""


def climbing(search: Climb, threat: Threat, seed: int) -> Climb:
    """A search by gradients, as inputs can be searched; ``seed`` is of its draws.

    Args:
        search: as it is on arrays.
        threat: in the domain of the inputs; of several parts, those that it names are searched.
        seed: of prompts, of the candidates.

    Raises:
        NotApplicable: where inputs have several parts, and the threat changes none of them.
    """
    if threat.domain.kind in WORDS:
        return CoordinateGradient.like(search, seed)
    if threat.domain.kind == "parts":
        parts = changed_parts(threat)
        each = replace(search, steps=shared(search.steps, len(parts)))
        return PartsInTurn.like(
            search, {name: climbing(each, inner, seed) for name, inner in parts.items()}
        )
    return search


def asking(search: RandomSearch, threat: Threat) -> RandomSearch:
    """A search by queries, likewise."""
    if threat.domain.kind in WORDS:
        return RandomWords.like(search)
    if threat.domain.kind == "parts":
        parts = changed_parts(threat)
        each = replace(search, queries=shared(search.queries, len(parts)))
        return PartsAsked(
            search.queries,
            search.squares,
            search.accept,
            searches={name: asking(each, inner) for name, inner in parts.items()},
            turns=turns(len(parts)),
        )
    return search


def shared(effort: int, parts: int) -> int:
    """What each search of some parts has in each of its turns, of an effort for all."""
    return max(1, effort // (parts * turns(parts)))
