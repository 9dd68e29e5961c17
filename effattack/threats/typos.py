"""Typing errors: what turns one text into another, character by character.

The four of Damerau, "A technique for computer detection and correction of spelling errors", 1964
(and of DeepWordBug, Gao et al. 2018, arXiv 1801.04354): a character is inserted, replaced, deleted,
or changes places with the next one. No character is edited twice (optimal string alignment).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import product
from typing import NamedTuple


class Kind(IntEnum):
    """Of a typing error."""

    INSERT, REPLACE, DELETE, TURN = range(4)


class Typo(NamedTuple):
    """One error; ``place`` is a character of the text without any error."""

    place: int
    kind: Kind
    character: str = ""
    """What is inserted before the place, or replaces what stands there."""

    def clashes(self, other: Typo) -> bool:
        """Whether both edit one character, or stand in one gap between two."""
        (first, last), (start, end) = self._span(), other._span()
        return first <= end and start <= last

    def fits(self, text: str) -> bool:
        """Whether the text has all characters that are edited."""
        return self._span()[1] <= 2 * len(text)

    def _span(self) -> tuple[int, int]:
        """Character p is 2p + 1, the gap before it is 2p."""
        if self.kind == Kind.INSERT:
            return 2 * self.place, 2 * self.place
        return 2 * self.place + 1, 2 * self.place + (3 if self.kind == Kind.TURN else 1)


def typed(text: str, typos: Iterable[Typo]) -> str:
    """A text with errors, of which no two clash but insertions: these follow each other."""
    found, done = "", 0
    for place, kind, character in sorted(typos, key=lambda typo: typo[:2]):
        found += text[done:place] + character
        done = place + {Kind.INSERT: 0, Kind.TURN: 2}.get(kind, 1)
        if kind == Kind.TURN:
            found += text[place + 1] + text[place]
    return found + text[done:]


def typos(before: str, after: str) -> list[Typo]:
    """The fewest errors that make ``after`` of ``before``, in order; one such list of many."""
    first = common(before, after)
    last = common(before[first:][::-1], after[first:][::-1])
    one, other = before[first : len(before) - last], after[first : len(after) - last]
    fewest = _table(one, other)
    found: list[Typo] = []
    i, j = len(one), len(other)
    while i or j:
        here = fewest[i][j]
        if i and j and one[i - 1] == other[j - 1] and here == fewest[i - 1][j - 1]:
            i, j = i - 1, j - 1
        elif _turned(one, other, i, j) and here == fewest[i - 2][j - 2] + 1:
            i, j = i - 2, j - 2
            found.append(Typo(first + i, Kind.TURN))
        elif i and j and here == fewest[i - 1][j - 1] + 1:
            i, j = i - 1, j - 1
            found.append(Typo(first + i, Kind.REPLACE, other[j]))
        elif i and here == fewest[i - 1][j] + 1:
            i -= 1
            found.append(Typo(first + i, Kind.DELETE))
        else:
            j -= 1
            found.append(Typo(first + i, Kind.INSERT, other[j]))
    return found[::-1]


def possible(text: str, alphabet: str) -> Iterator[Typo]:
    """All errors in a text; those that leave it as it is included."""
    for place in range(len(text) + 1):
        yield from (Typo(place, Kind.INSERT, character) for character in alphabet)
    for place, character in product(range(len(text)), alphabet):
        yield Typo(place, Kind.REPLACE, character)
    yield from (Typo(place, Kind.DELETE) for place in range(len(text)))
    yield from (Typo(place, Kind.TURN) for place in range(len(text) - 1))


def _table(one: str, other: str) -> list[list[int]]:
    """The fewest errors between the first i characters of one and the first j of the other."""
    fewest = [[i + j for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i, j in product(range(1, len(one) + 1), range(1, len(other) + 1)):
        ways = [
            fewest[i - 1][j] + 1,
            fewest[i][j - 1] + 1,
            fewest[i - 1][j - 1] + (one[i - 1] != other[j - 1]),
        ]
        if _turned(one, other, i, j):
            ways.append(fewest[i - 2][j - 2] + 1)
        fewest[i][j] = min(ways)
    return fewest


def _turned(one: str, other: str, i: int, j: int) -> bool:
    """Whether the last two of i and of j characters are each other's, turned round."""
    return i > 1 and j > 1 and one[i - 2 : i] == other[j - 2 : j][::-1]


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many characters, or other things, two rows share at the front."""
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
