"""How far generated inputs are from given ones: simple statistics, and a classifier between both.

Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017 (arXiv 1610.06545): what a
classifier tells apart on data that it has not seen is not of one distribution. An accuracy of one
half tells nothing against the generator, by this classifier and with so few inputs.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from effattack.inputs.imitation import Sample

FOLDS = 5
MOST = 500
"""Inputs of either side that are compared, the first so many."""
S = TypeVar("S", bound=Sample)


class Fidelity(NamedTuple):
    """Of pairs, the first number is of the given inputs."""

    mean: tuple[float, float]
    spread: tuple[float, float]
    """Standard deviation of the same numbers."""
    nearest: tuple[float, float]
    """Median distance from an input to the nearest other one that is given."""
    copies: float
    """Share of generated inputs that are a given one."""
    told_apart: float
    """Accuracy of the classifier."""
    by_chance: float
    """How far from one half it is by chance, in 95 of 100 cases, at most."""

    @property
    def differ(self) -> bool:
        """Whether the classifier is better than chance."""
        return self.told_apart > 0.5 + self.by_chance


def fidelity(given: S, generated: S, draw: Generator) -> Fidelity:
    """What there is to know of generated inputs.

    The classifier compares each half of the given inputs with as many that were made after the
    *other* half: a generator that repeats what it has seen gains nothing by it.
    """
    first, second = given.rows(range(min(MOST, len(given)))), generated
    second = second.rows(range(min(MOST, len(second))))
    points, made = first.points(second)
    among = _distances(points, points)
    np.fill_diagonal(among, np.inf)
    reached = _distances(made, points).min(1)
    one, other = _halves(first)
    right = [
        told_apart(*unseen.points(seen.imitated(len(unseen), draw)))
        for seen, unseen in ((one, other), (other, one))
    ]
    sizes = given.sizes(), generated.sizes()
    return Fidelity(
        (sizes[0].mean().item(), sizes[1].mean().item()),
        (sizes[0].std().item(), sizes[1].std().item()),
        (float(np.median(among.min(1))), float(np.median(reached))),
        float((reached == 0).mean()),
        float(np.mean(right)),
        1.96 * float(np.sqrt(0.25 / len(first))),
    )


def told_apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Accuracy of a forest of 100 trees between two samples (n, d), in five folds."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    labels = np.repeat([0, 1], [len(one), len(other)])
    folds = StratifiedKFold(min(FOLDS, len(one), len(other)), shuffle=True, random_state=0)
    forest = RandomForestClassifier(100, random_state=0)
    found = cross_val_predict(forest, np.concatenate([one, other]), labels, cv=folds)
    return float((found == labels).mean())


def _halves(sample: S) -> tuple[S, S]:
    """Every second input of each class, and the others."""
    order = np.argsort(sample.classes, kind="stable").tolist()
    return sample.rows(order[::2]), sample.rows(order[1::2])


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return cdist(one, other)
