"""Where the candidates of a detector lie, as the frame keeps it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effattack.results.heat import FINEST, covered, from_bytes, side_of, to_bytes

SIZES = [(1, 1), (12, 30), (40, 40), (60, 80), (160, 120)]
"""Of images whose squares have sides that floats hold exactly."""
BOX = st.tuples(*[st.integers(0, 160)] * 4).map(
    lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3]))
)


@given(st.sampled_from(SIZES), st.lists(BOX, max_size=9))
def test_each_square_counts_the_boxes_over_its_middle(
    size: tuple[int, int], boxes: list[tuple[int, ...]]
) -> None:
    """Square by square, against boxes that are wide enough to cover one."""
    height, width = size
    side = side_of(size)
    wide = np.array(
        [box for box in boxes if box[2] - box[0] >= side and box[3] - box[1] >= side], dtype=float
    ).reshape(-1, 4)
    wide[:, 0::2] = wide[:, 0::2].clip(0, width)
    wide[:, 1::2] = wide[:, 1::2].clip(0, height)
    wide = wide[(wide[:, 2:] - wide[:, :2] >= side).all(1)]
    found = covered(wide, size)
    assert found.boxes == len(wide)
    assert max(found.counts.shape) <= FINEST
    for (row, column), count in np.ndenumerate(found.counts):
        across, down = (column + 0.5) * side, (row + 0.5) * side
        inside = [b for b in wide if b[0] <= across < b[2] and b[1] <= down < b[3]]
        assert count == len(inside), (row, column)


def test_a_box_between_two_middles_counts_where_its_own_is() -> None:
    found = covered(np.array([[5.0, 9.0, 5.5, 9.5]]), (160, 120))
    assert side_of((160, 120)) == 4
    assert np.argwhere(found.counts).tolist() == [[2, 1]]


@pytest.mark.parametrize("count", [0, 70_000])
def test_bytes_and_back(count: int) -> None:
    """More boxes than two bytes hold are as many as they hold."""
    found = covered(np.tile([0.0, 0.0, 3.0, 2.0], (count, 1)), (2, 3))
    assert found.counts.tolist() == [[min(count, 65_535)] * 3] * 2
    again = from_bytes(to_bytes(found))
    assert again.boxes == count
    np.testing.assert_array_equal(again.counts, found.counts)
