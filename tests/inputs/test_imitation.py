"""Generated inputs against closed forms, and what is told of known distributions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effattack.inputs.fidelity import fidelity, told_apart
from effattack.inputs.imitation import Numbers, Words


def normal(count: int, seed: int, mean: float = 0.0, size: int = 6) -> Numbers:
    draw = np.random.default_rng(seed)
    return Numbers(mean + draw.normal(size=(count, 1, size)), np.arange(count) % 2)


def test_mean_and_covariance_of_a_class_stay() -> None:
    draw = np.random.default_rng(0)
    mixed = draw.normal(size=(40, 3)) @ draw.normal(size=(3, 3))
    one = Numbers((mixed + 5)[:, None], np.zeros(40, np.int64))
    found = one.imitated(200_000, draw).values[:, 0]
    assert found.mean(0) == pytest.approx(one.values[:, 0].mean(0), abs=0.1)
    ratio = np.linalg.solve(np.cov(mixed.T), np.cov(found.T))
    assert np.trace(ratio) / 3 == pytest.approx(1, abs=0.08), "but for what is cut at the range"


def test_each_has_the_class_that_it_is_made_after() -> None:
    values = np.array([0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 9.3])[:, None, None]
    labels = np.repeat([3, 8], 4)
    found = Numbers(values, labels).imitated(300, np.random.default_rng(0))
    assert {*found.labels} == {3, 8}
    assert (found.values[found.labels == 3] < 4).all()
    assert (found.values[found.labels == 8] > 4).all()


def test_all_given_ones_are_imitated_as_often() -> None:
    one = Numbers(np.arange(12.0)[:, None, None], np.repeat(np.arange(3), 4))
    found = one.imitated(30, np.random.default_rng(0)).labels
    assert {int((found == label).sum()) for label in range(3)} <= {8, 9, 10, 11, 12}
    assert len(found) == 30
    assert (np.bincount(one.imitated(24, np.random.default_rng(0)).labels) == 8).all()


@given(seed=st.integers(0, 200))
def test_arrays_stay_in_the_range_of_the_given_ones(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one = Numbers(draw.random((12, 2, 3)).astype(np.float32), np.arange(12) % 3)
    found = one.imitated(20, draw)
    assert found.values.dtype == np.float32
    assert one.values.min() <= found.values.min() <= found.values.max() <= one.values.max()
    again = one.imitated(20, np.random.default_rng(1)).values
    assert (again == one.imitated(20, np.random.default_rng(1)).values).all()


TEXTS = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=2, max_size=8).map(
    lambda rows: [tuple((word, word % 2) for word in row) for row in rows]
)


@given(texts=TEXTS, seed=st.integers(0, 99))
def test_neighbours_are_those_of_a_given_text_of_the_class(texts: list, seed: int) -> None:
    labels = [number % 2 for number in range(len(texts))]
    found = Words(texts, labels).imitated(10, np.random.default_rng(seed))
    longest = max(map(len, texts))
    for text, label in zip(found.texts, found.labels, strict=True):
        own = [given for given, of in zip(texts, labels, strict=True) if of == label]
        known = {pair for given in own for pair in pairwise([None, *given, None])}
        assert {*pairwise([None, *text, None])} <= known
        assert len(text) <= longest


def test_words_and_neighbours_are_counted() -> None:
    one, other = (Words([tuple((w, None) for w in text)], [0]) for text in ([1, 2, 1, 2], [2]))
    here, there = one.points(other)
    assert here.tolist() == [[2, 2, 2, 1]], "1, 2, (1, 2) and (2, 1)"
    assert there.tolist() == [[0, 1, 0, 0]]


def test_samples_of_one_distribution_are_not_told_apart_and_others_are() -> None:
    alike = told_apart(normal(100, 0).values[:, 0], normal(100, 1).values[:, 0])
    assert abs(alike - 0.5) < 1.96 * np.sqrt(0.25 / 100)
    assert told_apart(normal(100, 0).values[:, 0], normal(100, 1, 3.0).values[:, 0]) > 0.95


@pytest.mark.slow
def test_what_is_told_of_copies_and_of_others() -> None:
    one, draw = normal(60, 0), np.random.default_rng(0)
    same = fidelity(one, one.rows(range(30)), draw)
    assert (same.copies, same.nearest[1]) == (1, 0)
    among = np.linalg.norm(one.values[:, None, 0] - one.values[None, :, 0], axis=-1)
    np.fill_diagonal(among, np.inf)
    assert same.nearest[0] == pytest.approx(np.median(among.min(1)))
    assert same.mean == (one.values.mean(), one.values[:30].mean())
    assert same.spread == (one.values.std(), one.values[:30].std())
    assert not same.differ, "halves of a normal distribution, imitated by its own kind"


@pytest.mark.slow
def test_a_generator_that_repeats_its_inputs_gains_nothing_by_it() -> None:
    class Parrot(Numbers):
        def rows(self, indices):
            found = super().rows(indices)
            return Parrot(found.values, found.labels)

        def imitated(self, count, draw):
            return self.rows(draw.integers(2, size=count))

    one = normal(80, 0)
    parrot = Parrot(one.values, one.labels)
    assert fidelity(
        parrot, parrot.imitated(80, np.random.default_rng(0)), np.random.default_rng(0)
    ).differ
