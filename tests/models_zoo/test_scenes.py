"""Scenes are exact: boxes hold the digits, shifts move only what they say, splits share nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from effattack.domains import check_domain
from effattack.errors import UsageError
from effattack.models_zoo.detection import scenes as composed
from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.scenes import DOMAIN, SHIFTS, Placed, Plan, scenes
from effattack.tasks import Boxes

every_shift = pytest.mark.parametrize("shift", sorted(SHIFTS))
FLAT = np.zeros((9, 9))
NO_GRAIN = np.zeros((64, 64))


def one_digit(shift: str, ink: np.ndarray, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A digit of class 7 about (20, 30), on black."""
    digit = Placed(0, (20.0, 30.0), size, 1.0)
    planned = Plan((digit,), FLAT, NO_GRAIN)
    return composed.draw_scene(planned, ink[None], np.array([7]), SHIFTS[shift])


def test_a_box_holds_the_ink_and_nothing_else() -> None:
    ink = np.zeros((8, 8))
    ink[2:5, 3:4] = 1
    scene, boxes = one_digit("none", ink)
    left, top, right, bottom, score, kind = boxes[0].astype(int)
    assert (score, kind) == (1, 7)
    assert (boxes[1:] == -1).all()
    bright = np.argwhere(scene >= composed.INK)
    assert bright.min(0).tolist() == [top, left]
    assert (bright.max(0) + 1).tolist() == [bottom, right]


def test_a_full_frame_is_its_own_box() -> None:
    _, boxes = one_digit("none", np.ones((8, 8)))
    assert boxes[0, :4].tolist() == [12, 22, 28, 38]


def test_smaller_digits_keep_their_centres() -> None:
    _, boxes = one_digit("size", np.ones((8, 8)), size=20)
    assert boxes[0, :4].tolist() == [13, 23, 27, 37], "14 of 20 pixels"


def test_enlarging_is_what_torch_calls_bilinear() -> None:
    small = torch.rand(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    large = torch.nn.functional.interpolate(small[None, None], size=(19, 19), mode="bilinear")
    torch.testing.assert_close(torch.from_numpy(composed.enlarged(small.numpy(), 19)), large[0, 0])


@every_shift
def test_a_shift_keeps_the_digits_where_they_are(shift: str) -> None:
    (clean, before), (images, after) = scenes("heldout"), scenes("heldout", shift)
    assert torch.equal(before[..., 4:], after[..., 4:])
    there = before[..., 4] > 0
    middles = [(boxes[there][:, :2] + boxes[there][:, 2:4]) / 2 for boxes in (before, after)]
    assert (middles[0] - middles[1]).abs().amax() <= 3
    assert torch.equal(before, after) == (shift != "size")
    assert torch.equal(clean, images) == (shift == "none")


@every_shift
def test_scenes_are_inputs_and_labels_of_their_domain(shift: str) -> None:
    images, labels = scenes("test", shift)
    assert ((images >= 0) & (images <= 1)).all()
    DOMAIN.check(images)
    check_domain(DOMAIN)
    Boxes().check(labels, len(images))
    assert torch.equal(DOMAIN.snap(images), images)
    sides = (labels[..., 2:4] - labels[..., :2])[labels[..., 4] > 0]
    assert ((sides >= 3) & (sides <= 26)).all()


def test_no_two_boxes_overlap_and_all_lie_inside() -> None:
    for boxes in Boxes().members(scenes("heldout")[1]):
        assert ((boxes[:, :4] >= 0) & (boxes[:, :4] <= 64)).all()
        shares = Boxes(overlap=1e-6).alike(boxes, boxes)
        assert int(shares.sum()) == len(boxes)


def test_the_same_scenes_every_time() -> None:
    first, again = scenes("test"), scenes("test")
    assert torch.equal(first[0], again[0])
    composed._drawn.cache_clear()
    assert torch.equal(first[0], scenes("test")[0])


def test_an_unknown_shift_is_named() -> None:
    with pytest.raises(UsageError, match="unknown shift 'ligth': did you mean light"):
        scenes("test", "ligth")


def rows(*boxes: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float32)


def test_average_precision_in_closed_form() -> None:
    """Right, wrong, right, of three true boxes: precision 1, then 2/3, and a third never found."""
    truth = torch.stack(
        [
            rows((0, 0, 10, 10, 1, 3), (20, 20, 30, 30, 1, 3)),
            rows((0, 0, 10, 10, 1, 3), (0, 0, 0, 0, -1, -1)),
        ]
    )
    found = torch.stack(
        [
            rows((0, 0, 10, 9, 0.9, 3), (0, 0, 10, 10, 0.8, 3)),  # the second finds it once more
            rows((0, 0, 10, 10, 0.7, 3), (-1, -1, -1, -1, -1, -1)),
        ]
    )
    assert average_precision(found, truth) == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision(truth, truth) == 1
    assert average_precision(found[:, :0], truth) == 0


def test_average_precision_is_the_mean_over_true_classes() -> None:
    truth = rows((0, 0, 10, 10, 1, 3), (20, 20, 30, 30, 1, 4))[None]
    found = rows((0, 0, 10, 10, 0.9, 3), (20, 20, 30, 30, 0.8, 5))[None]
    assert average_precision(found, truth) == 0.5, "a class that is not there has no recall"
    barely = rows((0, 0, 10, 5, 0.9, 3))[None]
    assert average_precision(barely, truth[:, :1], 0.5) == 1
    assert average_precision(barely, truth[:, :1], 0.51) == 0
