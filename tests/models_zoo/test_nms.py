"""Greedy NMS: boxes that stay, and pairs compared, against torchvision and a plain loop."""

from math import nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, nms

from effattack.counting.macs import MacsCounter
from effattack.errors import UsageError
from effattack.models_zoo.detection.nms import BLOCK, greedy_nms, most_pairs, suppressed

placed = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 8)] * 2)
drawn = st.lists(st.tuples(placed, st.integers(0, 20), st.integers(0, 2)), max_size=30)
limits = st.sampled_from([0.0, 0.3, 0.45, 0.5, 0.7, 1.0])
caps = st.sampled_from([None, 1, 7, 30])


def as_tensors(rows):
    boxes = torch.tensor([row[0] for row in rows], dtype=torch.float32).view(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor([row[1] / 20 for row in rows], dtype=torch.float32)
    return boxes, scores, torch.tensor([row[2] for row in rows], dtype=torch.long)


def compared(boxes, scores, iou):
    """Box by box: what stays, and how many pairs it took."""
    kept, pairs = [], 0
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        for other in kept:
            pairs += 1
            if len(nms(boxes[[other, index]], torch.tensor([1.0, 0.5]), iou)) == 1:
                break
        else:
            kept.append(index)
    return kept, pairs


@settings(deadline=None, max_examples=60)
@given(drawn, limits)
def test_boxes_and_pairs_are_those_of_torchvision_and_of_a_plain_loop(rows, iou):
    boxes, scores, _ = as_tensors(rows)
    with MacsCounter() as counter:
        kept = greedy_nms(boxes, scores, iou, max_det=None)
    kept_by_loop, pairs = compared(boxes, scores.tolist(), iou)
    assert kept.tolist() == nms(boxes, scores, iou).tolist() == kept_by_loop
    assert counter.tallies.get("pairs", 0) == pairs


@settings(deadline=None, max_examples=60)
@given(drawn, limits, caps, caps, st.booleans())
def test_the_closed_form_is_what_the_loop_does(rows, iou, max_nms, max_det, apart):
    boxes, scores, classes = as_tensors(rows)
    args = (boxes, scores, iou, classes if apart else None, max_nms, max_det)
    with MacsCounter() as counter:
        kept = greedy_nms(*args)
    stated = suppressed(*args)
    assert stated.kept.tolist() == kept.tolist()
    assert stated.pairs == counter.tallies.get("pairs", 0) <= most_pairs(len(boxes), max_nms)
    assert 0 <= stated.slack <= 1


@settings(deadline=None, max_examples=60)
@given(drawn, limits)
def test_classes_do_not_suppress_each_other(rows, iou):
    boxes, scores, classes = as_tensors(rows)
    kept = greedy_nms(boxes, scores, iou, classes, max_det=None)
    assert kept.tolist() == batched_nms(boxes, scores, classes, iou).tolist()
    moved = greedy_nms(boxes - 100, scores, iou, classes, max_det=None)
    assert moved.tolist() == kept.tolist()


def test_more_boxes_than_a_block():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3 * BLOCK + 5, 2, generator=generator) * 100
    boxes = torch.cat(
        [corners, corners + 4 + torch.rand(corners.shape, generator=generator) * 20], 1
    )
    scores = torch.rand(len(boxes), generator=generator)
    with MacsCounter() as counter:
        kept = greedy_nms(boxes, scores, 0.45, max_det=None)
    stated = suppressed(boxes, scores, 0.45, max_det=None)
    assert stated.kept.tolist() == kept.tolist() == nms(boxes, scores, 0.45).tolist()
    assert stated.pairs == counter.tallies["pairs"]
    assert len(kept) > BLOCK / 2


def test_boxes_that_do_not_overlap_reach_the_most():
    places = torch.arange(40.0)[:, None] * 10
    boxes = (places + torch.tensor([0, 0, 5, 5])).float()
    stated = suppressed(boxes, torch.linspace(0, 1, 40), 0.5, max_det=5)
    assert stated.pairs == most_pairs(40) == 780
    assert len(stated.kept) == 5
    assert suppressed(boxes, torch.linspace(0, 1, 40), 0.5, max_nms=10).pairs == most_pairs(40, 10)


def test_slack_is_the_distance_to_the_nearest_tie():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    assert suppressed(boxes, torch.tensor([0.9, 0.5, 0.1]), 0.45).slack == pytest.approx(0.05)
    assert suppressed(boxes, torch.tensor([0.9, 0.89, 0.1]), 0.45).slack == pytest.approx(0.01)
    apart = torch.tensor([0.9, 0.5, 0.499])
    assert suppressed(boxes, apart, 0.7).slack == pytest.approx(0.001, rel=1e-3)
    assert suppressed(boxes[[0, 1, 1]], apart, 0.45).slack == pytest.approx(0.05)
    assert suppressed(boxes[:0], torch.tensor([]), 0.45) == (pytest.approx([]), 0, 1.0)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"boxes": torch.tensor([[0.0, 0, nan, 1]])}, "NaN"),
        ({"iou": 1.5}, "iou = 1.5 is out of range"),
        ({"max_det": 0}, "max_det = 0"),
        ({"max_nms": 0}, "max_nms = 0"),
        ({"scores": torch.tensor([0.5, 0.5])}, "give \\(n, 4\\) and \\(n,\\)"),
        ({"scores": torch.tensor([nan])}, "NaN"),
    ],
)
def test_bad_input_is_refused(changed, words):
    given = {"boxes": torch.rand(1, 4), "scores": torch.tensor([0.5]), "iou": 0.5, **changed}
    for run in (greedy_nms, suppressed):
        with pytest.raises(UsageError, match=words):
            run(**given)
