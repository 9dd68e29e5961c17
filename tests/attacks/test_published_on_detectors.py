"""Published losses on detectors against their equations, and their attacks on scenes."""

from __future__ import annotations

from types import SimpleNamespace

import detectors
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from toys import LinearSaver, embedded_or_skip
from two_stages import two_stage

import effattack
from effattack.attacks import (
    Daedalus,
    Overload,
    UniversalPhantomSponges,
    UniversalSlowdown,
    build,
)
from effattack.attacks.objectives import Goal
from effattack.attacks.published.detectors_losses import (
    ManySmallAndKept,
    NotYetHandedOn,
    SureAndSmall,
    TracksToBe,
)
from effattack.attacks.searches.attention import attention
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.detection.pipeline import Pipeline
from effattack.models_zoo.detection.scenes import scenes
from effattack.victim import Trace, Victim
from effattack.victim.proposing import UNNAMED, Proposals, proposals_of

PUBLISHED = ("Daedalus", "Overload", "PhantomSponges", "SlowTrack")
LOSSES = (ManySmallAndKept(0.6, 10.0), NotYetHandedOn(), SureAndSmall(), TracksToBe())
BOXES = torch.tensor([[[0, 0, 4, 5], [0, 0, 8, 5], [4, 0, 8, 10], [2, 2, 2, 7]]]).double()
"""Of an image 10 x 8 pixels: a quarter, a half and a half of it, and nothing."""
SCORES = torch.tensor([[0.9, 0.5, 0.1, 0.2]]).double()
AREAS = (0.25, 0.5, 0.5, 0.0)
THRESHOLD = 0.25
CLEAN = torch.tensor([[[0, 0, 8, 10, 0.8, 1], [4, 0, 8, 5, 0.6, 0], [-1, -1, -1, -1, -1, -1]]])


def proposed(
    boxes: Tensor = BOXES, scores: Tensor = SCORES, classes: tuple[float, ...] = (1, 0, 1, 0)
) -> Proposals:
    count = len(boxes)
    return Proposals(
        boxes,
        scores,
        torch.tensor(classes).double().repeat(count, 1),
        torch.full((count, 1), THRESHOLD).double(),
        torch.tensor([[8.0, 10.0]]).double().repeat(count, 1),
    )


def trace_of(found: Proposals) -> Trace:
    count = len(found.scores)
    return Trace(torch.zeros(count, 0, 6), (), torch.zeros(count), aux=found._asdict())


def goal_of(clean: Tensor = CLEAN) -> Goal:
    return SimpleNamespace(answer=clean)  # type: ignore[return-value]


def test_daedalus_wants_all_boxes_sure_and_small() -> None:
    expected = (0.1**2 + 0.5**2 + 0.9**2 + 0.8**2 + sum(area**2 for area in AREAS)) / 4
    found = SureAndSmall()(trace_of(proposed()), goal_of())
    assert found.item() == pytest.approx(-expected)


def test_phantom_sponges_counts_what_lacks_to_the_threshold_and_the_area_above_it() -> None:
    lacking, area = (0.15 + 0.05) / 4, (0.25 + 0.5) / 2
    found = ManySmallAndKept(1.0, 10.0)(trace_of(proposed()), goal_of())
    assert found.item() == pytest.approx(-lacking - 10 * area)


@pytest.mark.parametrize(
    ("classes", "kept"),
    [
        ((1, 0, 1, 0), (0.5 + 0.5) / 2),
        ((0, 1, 1, 0), (0.5 + 0.0) / 2),
        ((UNNAMED,) * 4, (0.5 + 0.5) / 2),
    ],
    ids=["as they were", "another one", "not named yet"],
)
def test_phantom_sponges_keeps_what_was_found(classes: tuple[float, ...], kept: float) -> None:
    """The clean boxes are the whole image, of class 1, and its right upper quarter, of class 0."""
    lacking, area = (0.15 + 0.05) / 4, (0.25 + 0.5) / 2
    found = ManySmallAndKept(0.6, 10.0)(trace_of(proposed(classes=classes)), goal_of())
    assert found.item() == pytest.approx(-0.6 * lacking - 10 * area - 0.4 * (1 - kept))


def test_a_box_below_a_thousandth_stands_for_nothing() -> None:
    faint = proposed(scores=torch.full_like(SCORES, 0.0009))
    lacking = 0.25 - 0.0009
    for clean in (CLEAN, CLEAN[:, 2:]):
        found = ManySmallAndKept(0.6, 10.0)(trace_of(faint), goal_of(clean))
        assert found.item() == pytest.approx(-0.6 * lacking - 0.4)


def test_overload_wants_no_more_of_boxes_that_are_handed_on() -> None:
    found = NotYetHandedOn()(trace_of(proposed()), goal_of())
    assert found.item() == pytest.approx(-(0.9**2 + 0.8**2))


def test_slowtrack_weighs_scores_and_areas() -> None:
    expected = 11 * (0.1**2 + 0.5**2 + 0.9**2 + 0.8**2) + 100 * sum(AREAS)
    found = TracksToBe()(trace_of(proposed()), goal_of())
    assert found.item() == pytest.approx(-expected)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 4), boxes=st.integers(1, 6))
def test_losses_have_finite_gradients_and_know_no_mates(seed: int, count: int, boxes: int) -> None:
    draw = Generator().manual_seed(seed)
    corners = torch.rand(count, boxes, 2, 2, generator=draw).double().sort(2).values * 8
    placed = corners.flatten(2).requires_grad_()
    scores = torch.rand(count, boxes, generator=draw).double().requires_grad_()
    found = proposed(placed, scores, (0,) * boxes)
    clean = CLEAN.expand(count, -1, -1)
    for loss in LOSSES:
        values = loss(trace_of(found), goal_of(clean))
        alone = [
            loss(trace_of(Proposals(*(part[k : k + 1] for part in found))), goal_of(clean[:1]))
            for k in range(count)
        ]
        assert torch.allclose(values, torch.cat(alone))
        slopes = torch.autograd.grad(values.sum(), (placed, scores), allow_unused=True)
        assert all(slope is None or slope.isfinite().all() for slope in slopes)


def test_steps_are_largest_in_the_first_cell_that_holds_least() -> None:
    """Of 2 x 2 cells of an image 10 x 8, boxes handed on leave the two lower ones empty."""
    expected = torch.full((1, 1, 10, 8), 0.5).double()
    expected[..., 5:, :4] = 1
    assert torch.equal(attention(proposed(), (10, 8), 2), expected)


def test_cells_cover_an_image_that_they_do_not_divide() -> None:
    weights = attention(proposed(), (10, 8), 3)
    assert weights.shape == (1, 1, 10, 8)
    assert set(weights.unique().tolist()) == {0.5, 1.0}


def test_a_grid_has_cells() -> None:
    with pytest.raises(UsageError, match="grid = 0"):
        Overload(detectors.detector(), grid=0)


@pytest.mark.parametrize("victim", [detectors.detector(), two_stage()], ids=["one", "two"])
def test_what_is_shown_is_what_the_gate_decides(victim: Victim) -> None:
    trace = victim.trace(detectors.noise(3))
    found = proposals_of(trace)
    gate = next(gate for gate in trace.gates if gate.name in ("boxes", "candidates"))
    assert torch.equal(found.handed_on, gate.active)
    assert 0 < found.handed_on.double().mean() < 1
    assert torch.equal(found.sides, torch.full((3, 2), 32.0))
    sides = found.boxes[..., 2:] - found.boxes[..., :2]
    assert torch.allclose(found.shares, sides.prod(2) / 1024)


def test_classes_are_shown_where_they_are_the_answers() -> None:
    one, two = (victim.trace(detectors.noise(2)) for victim in (detectors.detector(), two_stage()))
    assert set(proposals_of(one).classes.unique().tolist()) == {0.0, 1.0, 2.0}
    assert (proposals_of(two).classes == UNNAMED).all()


def test_without_a_threshold_all_boxes_are_handed_on() -> None:
    assert proposals_of(two_stage(score=None).trace(detectors.noise(2))).handed_on.all()


@pytest.mark.parametrize("name", [*PUBLISHED, "UniversalPhantomSponges"])
def test_a_victim_without_boxes_says_so(name: str) -> None:
    with pytest.raises(NotApplicable, match="shows no boxes before non-maximum suppression"):
        build(name, LinearSaver())


def test_no_perturbation_of_boxes_is_chosen_by_class() -> None:
    with pytest.raises(NotApplicable, match="leave per_class out"):
        UniversalSlowdown(detectors.detector(), per_class=True)


def spent(victim: Victim, images: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(images))


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("victim", [detectors.detector(), two_stage()], ids=["one", "two"])
def test_each_stays_inside_its_budget_and_never_falls_behind_the_clean(
    name: str, victim: Victim
) -> None:
    images = detectors.noise(2)
    attacked = build(f"{name}(steps=2)", victim, 8 / 255)(images)
    assert (attacked - images).abs().max() <= 8 / 255 + 1e-6
    assert (spent(victim, attacked) >= spent(victim, images)).all()


def test_the_best_iterate_of_daedalus_is_more_than_its_start() -> None:
    victim, images = detectors.detector(), detectors.noise(2)
    assert (spent(victim, Daedalus(victim, steps=5)(images)) > spent(victim, images)).all()


@pytest.mark.slow
def test_a_pipeline_shows_what_its_detector_does() -> None:
    victim = embedded_or_skip("scenes_pipeline")
    assert isinstance(victim, Pipeline)
    image = scenes("heldout")[0][:1]
    inner, whole = (proposals_of(each.trace(image)) for each in (victim.detector, victim))
    assert all(torch.equal(a, b) for a, b in zip(inner, whole, strict=True))
    assert (spent(victim, build("Daedalus(steps=5)", victim)(image)) > spent(victim, image)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("victim", ["scenes_detector", "scenes_two_stage"])
def test_each_beats_noise_on_scenes(name: str, victim: str) -> None:
    detector, images = embedded_or_skip(victim), scenes("heldout")[0][:4]
    noisy, attacked = (
        build(each, detector, 8 / 255)(images) for each in ("noise", f"{name}(steps=20)")
    )
    assert spent(detector, attacked).sum() > 1.2 * spent(detector, noisy).sum()
    with torch.no_grad():
        boxes = [detector.trace(each).also["boxes"].sum() for each in (noisy, attacked)]
    assert boxes[1] > 1.2 * boxes[0]


@pytest.mark.parametrize("name", ["UniversalPhantomSponges", "UniversalSlowdown"])
def test_universal_ones_learn_on_boxes(name: str) -> None:
    victim, images = detectors.detector(), detectors.noise(12)
    attack = build(f"{name}(epochs=4, batch=5)", victim, 16 / 255)
    found = attack.fit(images[:10])(images[10:])  # type: ignore[attr-defined]
    assert (found - images[10:]).abs().max() <= 16 / 255 + 1e-6
    learnt = attack(images[:10])
    assert spent(victim, learnt).sum() > spent(victim, images[:10]).sum()


@pytest.mark.slow
def test_a_universal_one_is_evaluated_on_boxes() -> None:
    victim, images = detectors.detector(), detectors.noise(8)
    answers = victim(images)
    fit = (images[:6], answers[:6])
    names = ["UniversalPhantomSponges(epochs=2)"]
    scores = effattack.evaluate(victim, images[6:], answers[6:], names, timed=0, fit=fit).scores()
    assert "UniversalPhantomSponges(epochs=2)" in set(scores.attack)


def test_phantom_sponges_starts_from_nothing() -> None:
    attack = UniversalPhantomSponges(detectors.detector())
    assert not attack.first((1, 3, 32, 32), Generator()).any()
