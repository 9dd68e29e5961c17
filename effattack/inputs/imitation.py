"""Inputs made after a few given ones, for users who have no more: simple models, fitted to these.

Of arrays a smoothed bootstrap, of texts a chain of words. Neither knows what the inputs are of, and
how far they are from the given ones is told by :mod:`.fidelity`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SMOOTH = 0.5
"""Deviation of what is added to a given array, in deviations of the arrays themselves."""


Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(n, d) and (m, d): inputs of two samples as points of one space."""


class Sample(Protocol):
    """Given inputs with their labels, or generated ones."""

    model: str
    """What imitates them, in words."""
    measure: str
    """What mean and spread are of."""

    def __len__(self) -> int: ...

    @property
    def classes(self) -> list[int]:
        """Of each input; all one where labels are no classes."""

    def rows(self, indices: Sequence[int]) -> Self:
        """Those of these indices, in this order."""

    def imitated(self, count: int, draw: Generator) -> Self:
        """So many generated inputs; each has the class of the given one that it is made after."""

    def sizes(self) -> NDArray[np.float64]:
        """What mean and spread are taken of."""

    def points(self, other: Self) -> Points:
        """Inputs of both."""


@dataclass(frozen=True)
class Numbers:
    """Arrays of one shape and their classes, ``values`` (n, ...) and ``labels`` (n,)."""

    values: NDArray[np.floating]
    labels: NDArray[np.int64]
    model = "a smoothed bootstrap"
    measure = "values"

    def __len__(self) -> int:
        return len(self.values)

    @property
    def classes(self) -> list[int]:
        return self.labels.tolist()

    def rows(self, indices: Sequence[int]) -> Numbers:
        return Numbers(self.values[list(indices)], self.labels[list(indices)])

    def imitated(self, count: int, draw: Generator) -> Numbers:
        """A given array plus noise of the covariance that arrays have within their class.

        The smoothed bootstrap of Silverman and Young, "The bootstrap: to smooth or not to smooth?",
        Biometrika 74 (1987), drawn towards the mean of its class so that mean and covariance of a
        class stay what they are. What leaves the range of the given values is cut to it.
        """
        values = self.values.reshape(len(self), -1).astype(np.float64)
        names, index = np.unique(self.labels, return_inverse=True)
        means = np.stack([values[index == own].mean(0) for own in range(len(names))])
        apart = values - means[index]
        after = _evenly(len(self), count, draw)
        weights = draw.standard_normal((count, len(self)))
        noise = weights @ apart / np.sqrt(len(self) - len(names))
        found = means[index[after]] + (apart[after] + SMOOTH * noise) / np.hypot(1, SMOOTH)
        found = found.clip(values.min(), values.max()).astype(self.values.dtype)
        return Numbers(found.reshape(count, *self.values.shape[1:]), self.labels[after])

    def sizes(self) -> NDArray[np.float64]:
        return self.values.astype(np.float64).ravel()

    def points(self, other: Numbers) -> Points:
        one, two = (each.values.reshape(len(each), -1).astype(np.float64) for each in (self, other))
        return one, two


Word = tuple[int, int | None]
"""The id of a word, and its tag."""
Chain = dict[Word | None, list[Word | None]]
"""Word -> those that follow it, as often as they do; None stands before the first one and behind
the last."""


@dataclass(frozen=True)
class Words:
    """Texts as words, each with its tag if they have any, and the class of each text."""

    texts: list[tuple[Word, ...]]
    labels: list[int]
    """All 0 where texts have no class."""
    model = "a chain of neighbouring words"
    measure = "words per text"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def tagged(self) -> bool:
        """Whether words have tags; all have, or none."""
        return self.texts[0][0][1] is not None

    @property
    def classes(self) -> list[int]:
        return self.labels

    def rows(self, indices: Sequence[int]) -> Words:
        return Words([self.texts[i] for i in indices], [self.labels[i] for i in indices])

    def imitated(self, count: int, draw: Generator) -> Words:
        """Each word is drawn from those that follow the one before it in a given text of the class.

        A text that gets longer than the longest given one begins anew.
        """
        labels = [self.labels[i] for i in _evenly(len(self), count, draw)]
        chains: dict[int, Chain] = defaultdict(lambda: defaultdict(list))
        for text, label in zip(self.texts, self.labels, strict=True):
            for one, other in pairwise([None, *text, None]):
                chains[label][one].append(other)
        longest = max(map(len, self.texts))
        return Words([_walked(chains[label], longest, draw) for label in labels], labels)

    def sizes(self) -> NDArray[np.float64]:
        return np.array([len(text) for text in self.texts], float)

    def points(self, other: Words) -> Points:
        """Counts of words, and of neighbours."""
        counts = [_counts(text) for text in (*self.texts, *other.texts)]
        things = dict.fromkeys(thing for count in counts for thing in count)
        places = {thing: place for place, thing in enumerate(things)}
        found = np.zeros((len(counts), len(places)))
        for row, count in zip(found, counts, strict=True):
            row[[places[thing] for thing in count]] = [*count.values()]
        return found[: len(self)], found[len(self) :]


def _evenly(given: int, count: int, draw: Generator) -> NDArray[np.int64]:
    """(count,) indices of given inputs, each as often as any other, but for one time."""
    turns = [draw.permutation(given) for _ in range(-(-count // given))]
    return np.concatenate(turns)[:count]


def _walked(chain: Chain, longest: int, draw: Generator) -> tuple[Word, ...]:
    found: list[Word] = []
    while True:
        following = chain[found[-1] if found else None]
        word = following[draw.integers(len(following))]
        if word is None:
            return tuple(found)
        found = [*found, word] if len(found) < longest else []


def _counts(text: tuple[Word, ...]) -> Counter[int | tuple[int, int]]:
    words = [word for word, _ in text]
    return Counter([*words, *pairwise(words)])
