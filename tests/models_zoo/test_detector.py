"""Any one-stage detector: boxes handed on, pairs compared, caps, and what ``decode`` may give."""

from math import nan

import numpy as np
import pytest
import torch
from detectors import Tiny, decode, detector, noise
from torchvision.ops import batched_nms

import effattack
from effattack.attacks import Slowdown
from effattack.counting.macs import count_macs
from effattack.errors import ContractError, NotApplicable, UsageError
from effattack.models_zoo.detection.detector import Detector
from effattack.reporting.stored import members
from effattack.results import heat
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS

VARIANTS = {
    "as it is": {},
    "all boxes": {"score": 0.0},
    "caps": {"score": 0.2, "max_nms": 12, "max_det": 5},
    "free sizes": {"input_shape": (3, None, None), "max_macs": 1e6},
    "nothing found": {"score": 1.0},
    "uncapped": {"max_nms": None, "max_det": None},
}
every_variant = pytest.mark.parametrize("variant", sorted(VARIANTS))


def in_numpy(maps):
    boxes, scores = decode(maps)
    return boxes.detach().numpy(), scores.detach().numpy()


def by_hand(images, score, iou, max_nms, max_det):
    """Boxes of one image each, with torchvision's NMS."""
    for boxes, scores in zip(*decode(Tiny()(images)), strict=True):
        best, classes = scores.max(1)
        order = best.argsort(descending=True)[:max_nms]
        order = order[best[order] > score]
        boxes = boxes[order].clamp(0, 32)
        kept = batched_nms(boxes, best[order], classes[order], iou)[:max_det]
        yield torch.cat(
            [boxes[kept], best[order][kept, None], classes[order][kept, None].float()], 1
        )


@every_variant
@pytest.mark.slow
def test_the_contract_holds(variant):
    victim, images = detector(**VARIANTS[variant]), noise(3)
    for check in INVARIANTS:
        said = check(victim, images)
        assert said == [] or (check.__name__ == "check_gradients" and variant == "nothing found")


@every_variant
@pytest.mark.slow
def test_work_is_told_as_it_is_stated(variant):
    victim, images = detector(**VARIANTS[variant]), noise(3)
    found, trace = audit(victim, images), victim.trace(images)
    assert found.macs.tolist() == trace.macs.tolist()
    assert found.macs[0] == count_macs(Tiny(), images[:1])
    for name, count in found.counts.items():
        assert torch.equal(count, trace.also[name]), name
        assert (count <= victim.ceiling(images, name)).all(), name
    assert not found.knife_edge.any()


@every_variant
def test_candidates_are_the_boxes_that_nms_is_given(variant):
    victim, images = detector(**VARIANTS[variant]), noise(3)
    found = audit(victim, images)
    assert [len(boxes) for boxes in found.candidates] == found.counts["boxes"].tolist()
    for boxes, answer in zip(found.candidates, victim.task.members(found.logits), strict=True):
        for box in answer:
            assert (boxes - box[:4]).abs().amax(1).amin() < 1e-5, "what comes out went in"


def test_frames_hold_where_candidates_lie():
    victim, images = detector(), noise(9)
    found = effattack.evaluate(victim, images, victim(images), [], timed=0)
    rows = found.samples[found.samples.attack == "clean"]
    assert rows.heat.notna().tolist() == [True] * 8 + [False]
    for row in rows[:8].itertuples():
        stored = heat.from_bytes(row.heat)
        assert stored.boxes == row.boxes
        assert stored.counts.shape == (32, 32)
        assert len(members(row.prediction, victim.answer_form)) == row.boxes_out
    assert found.meta["victims"][victim.name]["answer"] == victim.task.describe()


@pytest.mark.parametrize(
    ("score", "iou", "max_nms", "max_det"), [(0.9, 0.45, 64, 300), (0.1, 0.7, 20, 7)]
)
def test_answers_are_those_of_a_loop_around_torchvision(score, iou, max_nms, max_det):
    images = noise(3)
    victim = detector(score=score, iou=iou, max_nms=max_nms, max_det=max_det)
    with torch.no_grad():
        outputs, expected = victim(images), list(by_hand(images, score, iou, max_nms, max_det))
    assert [len(rows) for rows in victim.task.members(outputs)] == [len(rows) for rows in expected]
    for rows, other in zip(victim.task.members(outputs), expected, strict=True):
        assert len(other) > 0
        assert torch.allclose(rows, other, atol=1e-5)


def test_the_most_work_is_that_of_all_boxes_apart():
    victim, images = detector(max_nms=20, max_det=6), noise(2)
    assert victim.ceiling(images, "boxes").tolist() == [20, 20]
    assert victim.ceiling(images, "pairs").tolist() == [190, 190]
    assert victim.ceiling(images, "boxes_out").tolist() == [6, 6]
    apart = Detector(Tiny(), all_apart, max_nms=20, max_det=6, input_shape=(3, 32, 32))
    found = audit(apart, images).counts
    assert {name: count.tolist() for name, count in found.items()} == {
        "boxes": [20, 20],
        "pairs": [190, 190],
        "boxes_out": [6, 6],
    }


def all_apart(maps):
    """64 boxes of two pixels that do not overlap, all of them sure."""
    boxes, scores = decode(maps)
    centres = (torch.cartesian_prod(torch.arange(8), torch.arange(8)) * 4 + 2).to(boxes)
    placed = torch.cat([centres - 1, centres + 1], 1).expand_as(boxes) + 0 * boxes
    return placed, 0.99 + 0.01 * scores


def test_units_share_the_most_pairs():
    assert detector().trace(noise(1)).gates[0].cost == 63 / 2
    assert detector(max_nms=20).trace(noise(1)).gates[0].cost == 190 / 64


@pytest.mark.slow
def test_images_of_free_sizes_have_their_own_ceilings():
    victim = detector(**VARIANTS["free sizes"])
    small, large = noise(1), noise(1, 40, 64)
    assert victim.ceiling(small, "boxes").item() == 64
    assert victim.ceiling(large, "boxes").item() == 160
    for images in (small, large):
        assert audit(victim, images).macs == victim.ceiling(images) == victim.trace(images).macs


def test_a_name_says_what_no_deployment_does():
    assert detector().name == "Detector"
    assert detector(max_nms=None, name="mine").name == "mine, uncapped"


def test_of_every_group_the_best_go_on():
    def grouped(maps):
        boxes, scores = decode(maps)
        return boxes, scores.amax(2), torch.zeros(64, dtype=torch.long), torch.arange(64) // 32

    victim, images = Detector(Tiny(), grouped, 0.0, top=3, input_shape=(3, 32, 32)), noise(2)
    scores = decode(Tiny()(images))[1].amax(2)
    best = {f"{score:.6f}" for row in scores for half in row.split(32) for score in half.topk(3)[0]}
    assert victim.trace(images).also["boxes"].tolist() == [6, 6]
    assert victim.ceiling(images, "pairs").tolist() == [15, 15]
    assert audit(victim, images).counts["boxes"].tolist() == [6, 6]
    found = torch.cat(victim.task.members(victim(images)))[:, 4].tolist()
    assert found != []
    assert {f"{score:.6f}" for score in found} <= best


def test_boxes_are_cut_to_the_image():
    boxes = detector(score=0.0)(noise(2))
    boxes = torch.cat(detector().task.members(boxes))[:, :4]
    assert (boxes.min(), boxes.max()) == (0, 32)


def test_decode_in_numpy_gives_the_same_without_gradients():
    images, torch_one = noise(2), detector()
    victim = Detector(Tiny(), in_numpy, 0.9, input_shape=(3, 32, 32))
    found = audit(victim, images)
    assert torch.allclose(victim(images), torch_one(images), atol=1e-5)
    assert torch.equal(found.counts["pairs"], audit(torch_one, images).counts["pairs"])
    assert all(set(outside) == {"decode"} for outside in found.outside)
    with pytest.raises(NotApplicable, match=r"no gradient.*QueryAttack applies"):
        Slowdown(victim)


@pytest.mark.slow
def test_the_house_attack_makes_work_where_noise_makes_none():
    victim, images = detector(score=0.99), noise(3)
    attack = Slowdown(victim, steps=10)
    drawn = attack.threat.start(images, torch.Generator().manual_seed(0))
    clean, noisy, attacked = (
        victim.trace(each).also["pairs"].sum() for each in (images, drawn, attack(images))
    )
    assert attacked - clean > 5 * (noisy - clean).abs()


def refused(change, **settings):
    def changed(maps):
        return change(*decode(maps))

    return Detector(Tiny(), changed, input_shape=(3, 32, 32), **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda boxes, scores: (boxes / 0, scores), "boxes that are NaN or infinite.*exp"),
        (lambda boxes, scores: (boxes, scores * nan), "scores that are NaN"),
        (lambda boxes, scores: (boxes, scores - 1), "not in \\[0, 1\\].*sigmoid"),
        (lambda boxes, scores: (boxes, scores * 9), "not in \\[0, 1\\]"),
        (lambda boxes, scores: (boxes[..., :3], scores), "return boxes \\(B, N, 4\\)"),
        (lambda boxes, scores: (boxes[:, 1:], scores), "scores \\(1, 64, 3\\) for 1 images"),
        (lambda boxes, scores: (boxes[0], scores[0]), "return boxes \\(B, N, 4\\)"),
        (lambda boxes, scores: (boxes[:, :0], scores[:, :0]), "N at least 1"),
        (lambda boxes, scores: (boxes, scores, torch.zeros(64)), "classes only beside scores"),
        (lambda boxes, scores: (boxes,), "returned a tuple of 1"),
        (lambda boxes, scores: {"boxes": boxes}, "returned a dict"),
        (lambda boxes, scores: (boxes[..., [2, 3, 0, 1]], scores), "a box from .*left, top, right"),
        (
            lambda boxes, scores: (boxes, scores[..., 0], torch.zeros(3)),
            "classes \\(3,\\) beside 64",
        ),
        (lambda boxes, scores: (boxes, scores[..., 0], -torch.ones(64)), "whole numbers from 0"),
        (
            lambda boxes, scores: (boxes, scores[..., 0], torch.zeros(64), torch.full((64,), 0.5)),
            "groups \\(64,\\).*return \\(N,\\), whole numbers",
        ),
    ],
)
def test_what_decode_may_not_give_is_refused(change, words):
    with pytest.raises(ContractError, match=words):
        refused(change)


def test_boxes_that_only_some_images_have_are_refused():
    def chosen_already(maps):
        boxes, scores = decode(maps)
        there = (scores.amax(2) > 0.5).all(0)
        return boxes[:, there], scores[:, there]

    victim = Detector(Tiny(), chosen_already, input_shape=(3, 32, 32))
    with pytest.raises(ContractError, match=r"decode gave \d+ boxes for these.*return all"):
        audit(victim, noise(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_det": 0}, "max_det = 0"),
        ({"max_nms": 0}, "max_nms = 0"),
        ({"max_nms": 10.0}, "whole number"),
        ({"top": 0}, "top = 0"),
        ({"score": 1.5}, "score = 1.5"),
        ({"score": None}, "score = None"),
        ({"score": "0.5"}, "score = '0.5'"),
        ({"input_shape": (3, 0, 32)}, "\\(3, 0, 32\\): give \\(C, H, W\\)"),
        ({"iou": -0.1}, "iou = -0.1"),
        ({"iou": np.nan}, "iou = nan"),
    ],
)
def test_thresholds_and_caps_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        detector(**settings)
