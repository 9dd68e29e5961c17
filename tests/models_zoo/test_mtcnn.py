"""MTCNN with weights at random: its parts against oracles, and the contract as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from effattack.attacks import Slowdown, build
from effattack.counting.macs import MacsCounter
from effattack.errors import MissingPackage, UsageError
from effattack.models_zoo.detection import mtcnn_boxes, mtcnn_networks
from effattack.models_zoo.detection.mtcnn import MTCNN
from effattack.models_zoo.detection.mtcnn_networks import read_networks, untrained
from effattack.models_zoo.detection.mtcnn_nms import OVER_SMALLER, OVER_UNION, suppressed
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS
from effattack.victim.margins import log_odds
from effattack.victim.trace import CHOSEN_FROM

SHAPE = (3, 28, 32)


def made(shape: tuple[int, int, int] = SHAPE) -> MTCNN:
    """Heads are scaled so that every decision falls both ways."""
    torch.manual_seed(0)
    networks = untrained()
    with torch.no_grad():
        for network, scale, lift in zip(networks, (20.0, 40.0, 60.0), (0.1, 0.2, 0.6), strict=True):
            score = network.heads[0]
            score.weight.mul_(scale)
            score.bias.copy_(torch.tensor([-lift, lift]))
    return MTCNN(networks, shape)


@pytest.fixture(scope="module")
def victim() -> MTCNN:
    return made()


@pytest.fixture(scope="module")
def images(victim: MTCNN) -> Tensor:
    return noise(2)


def noise(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 9, generator=generator)
    return (interpolate(coarse, SHAPE[1:], mode="bilinear") * 255).round() / 255


def boxes_of(count: int, seed: int) -> Tensor:
    """On a coarse grid, so that overlaps are often equal to a limit."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 12, (count, 2), generator=generator).float()
    return torch.cat([corners, corners + torch.randint(1, 9, (count, 2), generator=generator)], 1)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_the_contract_holds(check, victim: MTCNN, images: Tensor) -> None:
    assert check(victim, images) == []


def test_candidates_and_stages_are_told(victim: MTCNN, images: Tensor) -> None:
    trace, found = victim.trace(images), audit(victim, images)
    small, large = victim.crop_macs
    for row, (boxes, stages) in enumerate(zip(found.candidates, found.stages, strict=True)):
        assert torch.equal(boxes, victim.cells[trace.gates[0].active[row]])
        crops = stages["R-Net"] / small + stages["O-Net"] / large
        assert crops == found.counts["crops"][row]
        assert stages["P-Net"] == victim.pyramid_macs


def test_every_decision_falls_both_ways(victim: MTCNN, images: Tensor) -> None:
    trace = victim.trace(images)
    for gate in trace.gates:
        assert gate.active.any()
        assert (gate.reached & ~gate.active).any()
    assert (victim(images)[..., 4] >= 0).any(1).all()


def test_work_is_told_and_executed(victim: MTCNN, images: Tensor) -> None:
    found, trace = audit(victim, images), victim.trace(images)
    assert torch.equal(found.macs, trace.macs)
    assert len(found.macs.unique()) > 1
    for name in ("candidates", "pairs", "crops", "boxes_out"):
        assert torch.equal(found.counts[name], trace.also[name])
        assert (found.counts[name] <= victim.ceiling(images, name)).all()
    refined = trace.gates[1].reached.sum(1)
    final = trace.also["crops"] - refined
    expected = victim.pyramid_macs + refined * 1_530_768 + final * 12_909_952
    assert torch.equal(trace.macs, expected.double())


def test_faces_are_chosen_from_what_is_proposed(victim: MTCNN, images: Tensor) -> None:
    """Those of O-Net's boxes that are let through, and that NMS leaves."""
    trace = victim.trace(images)
    assert torch.equal(trace.also["boxes_out"], (trace.logits[..., 4] >= 0).sum(1).double())
    final = trace.also["crops"] - trace.gates[1].reached.sum(1)
    for faces, proposals, count in zip(trace.logits, trace.aux[CHOSEN_FROM], final, strict=True):
        proposals, faces = proposals[: int(count)], faces[faces[:, 4] >= 0]
        let = proposals[proposals[:, 4] > 0]
        assert 0 < len(let) < count
        stay = suppressed(let[:, :4], let[:, 4], 0.7, OVER_SMALLER).stay
        assert torch.equal(let[stay][:, :4], faces[:, :4])
        excess = faces[:, 4].double().logit() - log_odds(0.7)
        assert torch.allclose(let[stay][:, 4].double(), excess, atol=1e-3)


def test_the_pyramid_of_a_photograph_costs_what_was_counted() -> None:
    """89,218,290 MACs at 320 x 240, as counted on facenet-pytorch."""
    victim = made((3, 240, 320))
    assert victim.pyramid_macs == 89_218_290
    with torch.no_grad():
        victim.proposal.heads[0].bias.copy_(torch.tensor([1e3, -1e3]))
    with MacsCounter() as counter:
        assert victim(torch.full((1, 3, 240, 320), 0.5)).shape == (1, 0, 6)
    assert counter.total == victim.pyramid_macs


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(0, 24),
    seed=st.integers(0, 1000),
    limit=st.sampled_from([0.3, 0.5, 0.7]),
    smaller=st.booleans(),
    levels=st.integers(1, 20),
)
def test_nms_is_the_greedy_loop(
    count: int, seed: int, limit: float, smaller: bool, levels: int
) -> None:
    """One pair after the other, as the loops of torchvision and facenet-pytorch are written."""
    boxes = boxes_of(count, seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, levels, (count,), generator=generator) / levels
    order = sorted(range(count), key=lambda box: (-scores[box].item(), box))
    kept, pairs, gone = [], 0, set()
    for place, box in enumerate(order):
        if box in gone:
            continue
        kept.append(box)
        for other in order[place + 1 :]:
            if other not in gone:
                pairs += 1
                if share(boxes[box].tolist(), boxes[other].tolist(), smaller) > limit + 1e-6:
                    gone.add(other)
    overlap = OVER_SMALLER if smaller else OVER_UNION
    with MacsCounter() as counter:
        found = suppressed(boxes, scores, limit, overlap)
    told = counter.tallies
    assert found.stay.tolist() == kept
    assert found.told()[0] == pairs == told.get("pairs", 0)
    assert told.get("candidates", 0) == count


def share(a: list[float], b: list[float], smaller: bool) -> float:
    extra = 1 if smaller else 0
    sides = [min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + extra for k in range(2)]
    common = max(0.0, sides[0]) * max(0.0, sides[1])
    areas = [(box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b)]
    return common / (min(areas) if smaller else sum(areas) - common)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 6), seed=st.integers(0, 1000), side=st.sampled_from([3, 24, 48]))
def test_crops_are_averages_over_areas(count: int, seed: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(0, 256, (2, 3, 20, 30), generator=generator).float()
    which = torch.randint(0, 2, (count,), generator=generator)
    pixels = mtcnn_boxes.inside(boxes_of(count, seed) * 2 - 3, 20, 30)
    there = (pixels[:, 2:] > pixels[:, :2]).all(1)
    which, pixels = which[there], pixels[there]
    found = mtcnn_boxes.crops(mtcnn_boxes.sums(levels), which, pixels, side)
    for crop, image, (left, top, right, bottom) in zip(found, which, pixels.tolist(), strict=True):
        part = levels[image, :, top:bottom, left:right].double()
        expected = interpolate(part[None], (side, side), mode="area")[0]
        assert torch.allclose(crop, expected, atol=1e-9)


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (5, 7), (1, 3)])
def test_no_level_leaves_more_cells_than_the_ceiling(rows: int, columns: int) -> None:
    """At scale 1, a box overlaps its neighbours by 99/143 and 81/161, and no other by a half."""
    level = mtcnn_boxes.Level(1.0, 0, 0, rows, columns)
    most = mtcnn_boxes.most_apart([level], 0.5)
    assert most == -(-rows // 2) * -(-columns // 2)
    boxes = mtcnn_boxes.cells(level)
    assert len(suppressed(boxes, torch.ones(len(boxes)), 0.5).kept) == most


def test_a_crop_outside_the_image_is_dropped(victim: MTCNN) -> None:
    boxes = torch.tensor([[-30.0, 5, -2, 33], [45, 10, 60, 25], [50, 10, 80, 40], [1, 1, 1, 1]])
    pixels = mtcnn_boxes.inside(boxes, 40, 48)
    assert pixels.tolist() == [[0, 4, -2, 33], [44, 9, 48, 25], [49, 9, 48, 40], [0, 0, 1, 1]]


def test_batch_mates_change_nothing(victim: MTCNN, images: Tensor) -> None:
    twin = victim.in_float64()
    assert twin is not None
    together = twin(images.double())
    for index, single in enumerate(images.double().split(1)):
        alone = twin(single)
        assert torch.allclose(alone[0], together[index, : alone.shape[1]], atol=1e-9)
        assert (together[index, alone.shape[1] :] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Slowdown(steps=8)", "AutoSlow", "QueryAttack(queries=40)"])
def test_attacks_apply_as_they_are(name: str, victim: MTCNN, images: Tensor) -> None:
    attacked = build(name, victim, 8 / 255)(images, victim(images))
    clean, slow = victim.trace(images), victim.trace(attacked)
    assert (slow.macs >= clean.macs).all()
    assert slow.macs.sum() > clean.macs.sum()


@pytest.mark.slow
def test_the_faces_can_be_kept(victim: MTCNN, images: Tensor) -> None:
    faces = victim(images)
    attacked = Slowdown(victim, eps=8 / 255, steps=8, keep_prediction=True)(images, faces)
    assert victim.task.agree(faces, victim(attacked)).all()


def test_images_without_numbers_are_refused(victim: MTCNN, images: Tensor) -> None:
    images = images.clone()
    images[1, 0, 3, 3] = torch.nan
    with pytest.raises(UsageError, match="scores of P-Net are NaN: give finite images"):
        victim(images)


@pytest.mark.parametrize("shape", [(3, 11, 40), (3, 40, 19)])
def test_images_in_which_no_face_fits_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="no face of 20 pixels"):
        MTCNN(untrained(), shape)


@pytest.mark.parametrize("shape", [(1, 40, 40), (3, None, None), (40, 40)])
def test_shapes_that_are_none_are_refused(shape) -> None:
    with pytest.raises(UsageError, match=r"give \(3, H, W\)"):
        MTCNN(untrained(), shape)


@pytest.mark.parametrize("size", [(3, 40, 40), (28, 32)])
def test_a_batch_of_another_size_is_refused(victim: MTCNN, size: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="give at least one image of shape"):
        victim(torch.zeros(2, *size) if len(size) == 3 else torch.zeros(*size))


def test_weights_come_back_from_files(tmp_path: Path, images: Tensor) -> None:
    victim = made()
    networks = (victim.proposal, victim.refinement, victim.output)
    for name, network in zip(("pnet", "rnet", "onet"), networks, strict=True):
        torch.save(network.state_dict(), tmp_path / f"{name}.pt")
    again = MTCNN.from_facenet(tmp_path, SHAPE)
    assert torch.equal(again(images), victim(images))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    networks = untrained()
    torch.save(networks.refinement.state_dict(), tmp_path / "pnet.pt")
    with pytest.raises(UsageError, match=r"pnet.pt holds the weights of another model: conv1.bias"):
        read_networks(tmp_path)
    with pytest.raises(UsageError, match=r"pnet.pt is missing: name the folder"):
        read_networks(tmp_path / "nowhere")


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn_networks, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackage, match=r"pip install --no-deps facenet-pytorch==2.6.0, or name the folder"
    ):
        MTCNN.from_facenet()
