"""A pipeline pays for its detector, and for every look of its recogniser."""

from __future__ import annotations

import pytest
import torch
from test_criteria import chain_of_stages
from test_mtcnn import made, noise
from torch import Tensor
from toys import embedded_or_skip as embedded

from effattack.errors import UsageError
from effattack.models_zoo.detection.pipeline import DETECTOR, RECOGNISER, Pipeline, squares
from effattack.models_zoo.detection.scenes import scenes
from effattack.victim import audit
from effattack.victim.checks import held_to
from effattack.victim.trace import CHOSEN_FROM


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    victim = embedded("scenes_pipeline")
    assert isinstance(victim, Pipeline)
    return victim


@pytest.fixture(scope="module")
def who_it_is() -> Pipeline:
    """Faces and a recogniser with exits, both with weights at random."""
    return Pipeline(made(), chain_of_stages(0.3), name="who it is")


@pytest.mark.slow
def test_its_work_is_the_detector_and_every_look(pipeline: Pipeline) -> None:
    expect_all_work_told(pipeline, scenes("heldout")[0][:3])


def test_every_face_is_looked_at_until_somebody_is_recognised(who_it_is: Pipeline) -> None:
    images = noise(2)
    expect_all_work_told(who_it_is, images)
    trace = who_it_is.trace(images)
    assert torch.equal(trace.also["looks"], trace.also["boxes_out"])
    assert (trace.also["looks"] > 0).all()
    assert trace.also["crops"].tolist() == who_it_is.detector.trace(images).also["crops"].tolist()
    assert [gate.name for gate in trace.gates[:2]] == ["candidates", "to_onet"]
    exits = trace.gates[2]
    assert exits.active.any()
    assert (exits.reached & ~exits.active).any()
    assert CHOSEN_FROM not in trace.aux, "their classes are the detector's"


def expect_all_work_told(pipeline: Pipeline, images: Tensor) -> None:
    """Each crop alone, by a counter, against the closed form of all at once."""
    whole = audit(pipeline, images)
    with torch.no_grad():
        trace = pipeline.trace(images)
    for row, image in enumerate(images.split(1)):
        crops = pipeline.crops(image, pipeline.detector(image)).detach()
        looks = sum(audit(pipeline.recogniser, crop).macs.item() for crop in crops.split(1))
        found = audit(pipeline.detector, image).macs.item()
        assert (trace.stages[DETECTOR][row], trace.stages[RECOGNISER][row]) == (found, looks)
        assert trace.macs[row] == whole.macs[row] == found + looks
        assert trace.also["looks"][row] == whole.counts["looks"][row] == len(crops)


def test_without_a_face_nobody_is_looked_at(who_it_is: Pipeline) -> None:
    """An answer of MTCNN has no rows then, where a detector's are padded."""
    blind, images = made(), noise(2)
    with torch.no_grad():
        blind.output.heads[0].bias.copy_(torch.tensor([1e3, -1e3]))
    victim = Pipeline(blind, who_it_is.recogniser)
    assert victim(images).shape == (2, 0, 6)
    found, trace, alone = audit(victim, images), victim.trace(images), blind.trace(images)
    assert found.counts["looks"].tolist() == trace.also["looks"].tolist() == [0, 0]
    assert torch.equal(trace.macs, alone.macs)
    assert torch.equal(trace.slack, alone.slack)
    units = [gate.margin.shape for gate in trace.gates]
    assert units == [gate.margin.shape for gate in who_it_is.trace(images).gates]
    assert all(gate.margin.requires_grad for gate in victim.trace(images.requires_grad_()).gates)


def test_nothing_found_is_nothing_to_look_at(pipeline: Pipeline) -> None:
    black = torch.zeros(2, 1, 64, 64)
    trace = pipeline.trace(black)
    assert trace.also["looks"].tolist() == [0, 0]
    assert torch.equal(trace.macs, trace.stages[DETECTOR])
    assert not any(gate.reached.any() for gate in trace.gates[1:])
    assert len(trace.gates) == len(pipeline.trace(scenes("heldout")[0][:1]).gates)
    assert (pipeline(black)[..., 4] == -1).all()


def test_a_box_is_a_row_of_units(pipeline: Pipeline) -> None:
    """An exit is reached by the boxes there are, row by row, and past it by whom it passed on."""
    images = scenes("heldout")[0][:4]
    trace = pipeline.trace(images)
    boxes, first, second, _ = trace.gates
    assert boxes.cost == pipeline.recogniser.max_macs
    assert first.name == "recogniser.exits.0"
    there = trace.logits[..., 4] >= 0
    assert torch.equal(first.reached, there)
    assert torch.equal(second.reached, first.active)


def test_crops_are_squares_cut_to_the_image(pipeline: Pipeline) -> None:
    ramp = (torch.arange(64) / 64).expand(1, 1, 64, 64)
    boxes = torch.full((1, 3, 6), -1.0)
    boxes[0, 0] = torch.tensor([10, 20, 16, 32, 0.9, 3])
    boxes[0, 1] = torch.tensor([60, 0, 64, 10, 0.8, 3])
    assert squares(boxes)[0, :2].tolist() == [[7, 20, 19, 32], [57, 0, 67, 10]]
    crops = pipeline.crops(ramp, boxes)
    assert crops.shape == (2, *pipeline.recogniser.input_shape)
    assert torch.equal(crops[:, 0], crops[:, 2])
    expected = [ramp[..., 20:32, 7:19], ramp[..., 0:10, 57:64]]
    for crop, part in zip(crops, expected, strict=True):
        large = torch.nn.functional.interpolate(part, size=(32, 32), mode="bilinear")
        torch.testing.assert_close(crop[:1], pipeline.prepare(large)[0])


def test_a_box_without_area_is_a_pixel(pipeline: Pipeline) -> None:
    boxes = torch.tensor([[[64.0, 64, 64, 64, 0.9, 3]]])
    assert pipeline.crops(torch.ones(1, 1, 64, 64), boxes).eq(1).all()


@pytest.mark.slow
def test_it_keeps_the_contract(pipeline: Pipeline) -> None:
    expect_contract(pipeline, scenes("heldout")[0][:4])


@pytest.mark.slow
def test_the_contract_is_kept_behind_faces(who_it_is: Pipeline) -> None:
    expect_contract(who_it_is, noise(2))


def expect_contract(pipeline: Pipeline, images: Tensor) -> None:
    for check, victim in held_to(pipeline):
        assert check(victim, images) == []


def test_what_does_not_fit_is_refused(pipeline: Pipeline) -> None:
    detector, recogniser = pipeline.detector, pipeline.recogniser
    with pytest.raises(UsageError, match="is no detector that counts its boxes out"):
        Pipeline(recogniser, recogniser)
    with pytest.raises(UsageError, match="classifies no images"):
        Pipeline(detector, detector)
