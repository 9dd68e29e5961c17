"""What was run is not run again while something else is left: against sets of rows."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, randint

from effattack.attacks.searches.untried import Untried


def as_rows(ids: Tensor) -> list[tuple[int, ...]]:
    return [tuple(row) for row in ids.tolist()]


@given(seed=st.integers(0, 10**6), words=st.integers(2, 5), count=st.integers(1, 6))
def test_the_first_new_ones_are_taken_in_their_order(seed: int, words: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = randint(-1, words, (3, 2), generator=generator)
    pools = [randint(-1, words, (6, 3, 2), generator=generator) for _ in range(3)]
    untried = Untried.but(first)
    known = [{row} for row in as_rows(first)]
    for pool in pools:
        taken = untried.take(pool, count)
        for which, run in enumerate(known):
            new: list[tuple[int, ...]] = []
            for row in as_rows(pool[:, which]):
                if row not in run and row not in new:
                    new.append(row)
            assert as_rows(taken[:, which])[: len(new)] == new[:count]
            run.update(as_rows(taken[:, which]))


def test_inputs_that_are_left_alone_take_what_they_know_along() -> None:
    untried = Untried.but(torch.tensor([[1, 2], [3, 4]])).rows(torch.tensor([False, True]))
    pool = torch.tensor([[[3, 4]], [[1, 2]]])
    assert untried.take(pool, 1).tolist() == [[[1, 2]]]
