"""The detectors of scenes are what their cards say, and pay for what they propose."""

from __future__ import annotations

import pytest
import torch
from toys import embedded_or_skip as embedded

from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.networks import (
    STRIDE,
    USUAL,
    cell_middles,
    decoded,
    faster_rcnn,
)
from effattack.models_zoo.detection.scenes import SHIFTS, scored_scenes
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.recipes import RECIPES, detection
from effattack.victim import audit

NAMES = ["scenes_detector", "scenes_pipeline", "scenes_two_stage", "scenes_two_stage_adapted"]
TRAINED = [name for name in NAMES if name != "scenes_pipeline"]
every_detector = pytest.mark.parametrize("name", NAMES)


@pytest.mark.slow
@every_detector
def test_the_card_agrees(name: str) -> None:
    victim, card, (images, truth) = embedded(name), read_card(name), scored_scenes()
    with torch.no_grad():
        trace = victim.trace(images)
    right = victim.task.right(trace.logits, truth).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=0.0051)
    assert average_precision(trace.logits, truth) == pytest.approx(
        card["average_precision"], abs=5e-3
    )
    for count in victim.counts:
        told = trace.also[count].mean().item()
        assert told == pytest.approx(card[f"clean_{count}"], rel=0.02), count
        assert told <= victim.ceiling(images[:1], count).item() / 2, "there are savings to lose"
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=0.01)
    assert round(victim.max_macs) == card["max_macs"]
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]


@pytest.mark.slow
@every_detector
def test_the_card_agrees_under_shift(name: str) -> None:
    victim, precisions = embedded(name), read_card(name)["average_precision_shifted"]
    assert precisions.keys() == SHIFTS.keys() - {"none"}
    for shift, stated in precisions.items():
        _, found, truth = detection.seen(victim, shift)
        assert average_precision(found, truth) == pytest.approx(stated, abs=5e-3), shift


@every_detector
def test_it_finds_what_is_there(name: str) -> None:
    assert read_card(name)["average_precision"] >= 0.9
    assert read_card(name)["recipe"].split()[-1] in RECIPES


@pytest.mark.parametrize("name", TRAINED)
def test_weights_are_small(name: str) -> None:
    assert sum(p.numel() for p in embedded(name).parameters()) < 300_000
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size <= 1_000_000


@pytest.mark.slow
@every_detector
def test_its_declared_work_is_executed_work(name: str) -> None:
    victim, images = embedded(name), scored_scenes()[0][:4]
    found = audit(victim, images)
    with torch.no_grad():
        trace = victim.trace(images)
    assert torch.equal(found.macs, trace.macs)
    for count in victim.counts:
        assert torch.equal(found.counts[count], trace.also[count]), count


def test_cells_lie_a_stride_apart() -> None:
    middles = cell_middles(2, 3)
    assert middles.tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]
    boxes = decoded(torch.tensor([[0.5, -1.0, 0.0, torch.log(torch.tensor(2.0))]]), middles[:1])
    x, y = 2 + STRIDE / 2, 2 - STRIDE
    assert boxes[0].tolist() == pytest.approx([x - USUAL / 2, y - USUAL, x + USUAL / 2, y + USUAL])


def test_the_loss_is_least_where_every_cell_is_right() -> None:
    """One digit about (30, 30): nine cells are its own; who says so loses nothing."""
    truth = torch.tensor([[[26.0, 24, 34, 36, 1, 7], [-1, -1, -1, -1, -1, -1]]])
    middles = cell_middles(16, 16)
    own = ((middles - 30).abs().amax(1) <= STRIDE).double()
    assert own.sum() == 9
    logits = torch.full((1, 256, 10), -20.0)
    logits[0, own.bool(), 7] = 20
    boxes = truth[:, :1, :4].expand(1, 256, 4)
    network = _Said(torch.cat([boxes, logits], 2))
    loss = detection.cells_loss(network)
    images = torch.zeros(1, 1, 64, 64)
    assert loss(images, truth).item() == pytest.approx(0, abs=1e-6)
    network.raw = torch.cat([boxes + 4, logits], 2)
    overlap = 4 * 8 / (2 * 96 - 32)
    expected = 1 - overlap + (12 * 16 - (2 * 96 - 32)) / (12 * 16)
    assert loss(images, truth).item() == pytest.approx(expected, rel=1e-4)


class _Said(torch.nn.Module):
    """A network that says what it is told."""

    def __init__(self, raw: torch.Tensor) -> None:
        super().__init__()
        self.raw = raw

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.raw


@pytest.mark.slow
def test_two_stages_find_what_torchvision_finds() -> None:
    """The network by itself, given the same thresholds and caps; its classes count from 1."""
    victim, images = embedded("scenes_two_stage"), scored_scenes()[0][:20]
    network = faster_rcnn(10, 64).eval()
    network.load_state_dict(victim.network.model.state_dict())
    network.rpn.score_thresh, network.rpn.nms_thresh = 0.3, 0.7
    network.rpn._pre_nms_top_n["testing"] = 256
    network.rpn._post_nms_top_n["testing"] = 128
    network.roi_heads.score_thresh, network.roi_heads.nms_thresh = 0.3, 0.5
    with torch.no_grad():
        theirs, ours = network(list(images)), victim.task.members(victim(images))
    assert sum(map(len, ours)) > 20
    for expected, found in zip(theirs, ours, strict=True):
        torch.testing.assert_close(found[:, :4], expected["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(found[:, 4], expected["scores"])
        assert found[:, 5].tolist() == (expected["labels"] - 1).tolist()
