"""Whatever the search does, a threat keeps it inside the budget, [0, 1] and the 8-bit grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from toys import noise_images

from effattack.budgets import LEVELS, budget_text, check_eps, size_text
from effattack.domains import Pixels, Series
from effattack.domains.pixels import to_grid
from effattack.errors import MeasurementError, UsageError
from effattack.threats import L0, L1, L2, Box, Linf, Nothing, Patch, Threat, parse_threat

FLOAT32 = 1e-6
"""What rounding may add to a distance."""
IMAGES = Pixels((3, 5, 5))

budgets = st.floats(1 / 255, 1) | st.sampled_from([k / 255 for k in (1, 2, 4, 8, 16, 255)])
threats = budgets.map(Linf) | st.just(Box())
seeds = st.integers(0, 2**31)
property_test = settings(max_examples=40, deadline=None, derandomize=True)


def clean_images(seed: int) -> Tensor:
    """A third of the pixels black or white, where budget and pixel box meet."""
    images = noise_images(4, seed, (3, 5, 5))
    edges = torch.rand(images.shape, generator=Generator().manual_seed(seed))
    return torch.where(edges < 1 / 3, images.round(), images)


def anywhere(seed: int) -> Tensor:
    """Iterates that may lie far outside."""
    return 3 * torch.randn(4, 3, 5, 5, generator=Generator().manual_seed(seed))


def levels(images: Tensor) -> Tensor:
    return (images * LEVELS).round()


@given(threat=threats, seed=seeds)
@property_test
def test_projection(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    projected = threat.project(anywhere(seed), clean)
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert (projected - clean).abs().max() <= threat.eps + FLOAT32
    assert torch.equal(threat.project(projected, clean), projected), "idempotent"
    assert torch.equal(threat.project(clean, clean), clean)


@given(eps=budgets, seed=seeds)
@property_test
def test_projection_is_the_nearest_point(eps: float, seed: int) -> None:
    clean, images = clean_images(seed), anywhere(seed)
    lower, upper = (clean - eps).clamp_min(0), (clean + eps).clamp_max(1)
    expected = torch.minimum(torch.maximum(images, lower), upper)
    torch.testing.assert_close(Linf(eps).project(images, clean), expected)


@given(threat=threats, seed=seeds)
@property_test
def test_on_grid(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    for images in (anywhere(seed), threat.start(clean, Generator().manual_seed(seed)), clean):
        found = threat.on_grid(images, clean)
        assert torch.equal(found, to_grid(found)), "on the 8-bit grid, to the last bit"
        assert found.min() >= 0
        assert found.max() <= 1
        moved = (levels(found) - levels(clean)).abs().max().item()
        assert moved <= math.floor(threat.eps * LEVELS + 1e-6), "inside the budget, exactly"
        assert torch.equal(threat.on_grid(found, clean), found), "idempotent"
    assert torch.equal(threat.on_grid(clean, clean), clean)


@given(threat=threats, seed=seeds)
@property_test
def test_on_grid_stays_near(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    iterate = threat.project(anywhere(seed), clean)
    step = 1 if (threat.eps * LEVELS) % 1 > 1e-6 else 0.5
    assert (threat.on_grid(iterate, clean) - iterate).abs().max() <= step / LEVELS + FLOAT32


@given(threat=threats, seed=seeds)
@property_test
def test_start(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    start = threat.start(clean, Generator().manual_seed(seed))
    assert start.min() >= 0
    assert start.max() <= 1
    assert (start - clean).abs().max() <= threat.eps + FLOAT32
    assert torch.equal(start, threat.start(clean, Generator().manual_seed(seed)))
    assert not torch.equal(start, threat.start(clean, Generator().manual_seed(seed + 1)))


def test_start_fills_the_budget() -> None:
    grey = torch.full((200, 1, 8, 8), 128 / LEVELS)
    change = Linf(8 / 255).start(grey, Generator().manual_seed(0)) - grey
    assert abs(change.mean()) < 1e-3
    assert abs(change.std() - 8 / 255 / math.sqrt(3)) < 1e-3, "uniform"


@pytest.mark.parametrize("threat", [Linf(8 / 255), Box()])
def test_ascent_is_steepest(threat: Threat) -> None:
    images = torch.full((1, 1, 1, 3), 0.5)
    gradient = torch.tensor([[[[-3.0, 0.0, 1e-20]]]])
    moved = (threat.ascend(images, gradient, 0.5) - images).flatten()
    torch.testing.assert_close(moved, 0.5 * threat.eps * torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threat", [Linf(8 / 255), Box()])
def test_dtype_is_kept(threat: Threat, dtype: torch.dtype) -> None:
    clean = clean_images(0).to(dtype)
    start = threat.start(clean, Generator().manual_seed(0))
    assert start.dtype == threat.project(start, clean).dtype == dtype
    assert threat.on_grid(start, clean).dtype == dtype


@pytest.mark.parametrize(
    "eps", [0, 0.0, -8 / 255, math.nan, math.inf, 1.5, 8, "8/255", None, torch.tensor(0.1)]
)
def test_budgets_that_are_none(eps: object) -> None:
    with pytest.raises(UsageError, match=r"such as 8/255"):
        Linf(eps).on(IMAGES)


def test_budget_below_one_grey_level() -> None:
    for ball in (Linf, L2, L1):
        with pytest.raises(UsageError, match=r"less than one step of images \(1/255\)"):
            ball(0.9 / 255).on(IMAGES)
        ball(1 / 255).on(IMAGES)


@pytest.mark.parametrize("eps", [8 / 255, 1, np.float64(0.1)])
def test_budgets_that_are(eps: float) -> None:
    assert check_eps(eps) == eps
    assert type(check_eps(eps)) is float


def test_repr_tells_the_budget() -> None:
    assert "eps=0.5" in repr(Linf(0.5))


# the threats beyond l-inf


balls = st.one_of(
    st.floats(1 / 255, 8).map(L2),
    st.floats(1 / 255, 40).map(L1),
    st.sampled_from([L2(k / 255) for k in (1, 5)] + [L1(k / 255) for k in (1, 2, 7)]),
)
corners = st.tuples(st.integers(0, 1), st.integers(0, 1))
patches = st.builds(Patch, st.integers(1, 4), st.none() | corners)
sparse = patches | st.integers(1, 30).map(L0)


def spent(threat: Threat, images: Tensor, clean: Tensor) -> Tensor:
    """(B,) what the images take of a budget, in its unit."""
    change = (images - clean).double().flatten(1)
    if isinstance(threat, L2):
        return change.norm(dim=1)
    if isinstance(threat, L1):
        return change.abs().sum(1)
    changed = ((images - clean).abs() > FLOAT32).any(1)
    if isinstance(threat, L0):
        return changed.flatten(1).sum(1).double()
    sides = [line.any(1).nonzero()[:, 0] for picture in changed for line in (picture, picture.T)]
    lengths = [int(s.max() - s.min()) + 1 if len(s) else 0 for s in sides]
    return torch.tensor(lengths).view(-1, 2).amax(1).double()


@given(threat=balls | sparse, seed=seeds)
@property_test
def test_every_iterate_stays_inside(threat: Threat, seed: int) -> None:
    clean, generator = clean_images(seed), Generator().manual_seed(seed)
    placed = threat.placed(clean, generator)
    start = placed.start(clean, generator)
    climbed = placed.ascend(start, anywhere(seed + 1), 1.0)
    for images in (start, placed.project(climbed, clean), placed.project(anywhere(seed), clean)):
        assert images.min() >= 0
        assert images.max() <= 1
        assert (spent(threat, images, clean) <= threat.eps * (1 + 2e-6) + FLOAT32).all()
        torch.testing.assert_close(placed.project(images, clean), images, msg="idempotent")
    torch.testing.assert_close(placed.project(clean, clean), clean)


@given(threat=balls | sparse, seed=seeds)
@property_test
def test_the_grid_stays_inside_too(threat: Threat, seed: int) -> None:
    clean, generator = clean_images(seed), Generator().manual_seed(seed)
    placed = threat.placed(clean, generator)
    for images in (anywhere(seed), placed.start(clean, generator), clean):
        found = placed.on_grid(images, clean)
        assert torch.equal(found, to_grid(found))
        assert found.min() >= 0
        assert found.max() <= 1
        assert (spent(threat, found, clean) <= threat.eps * (1 + 2e-6) + FLOAT32).all()
        threat.check(found, clean)
        assert torch.equal(placed.on_grid(found, clean), found), "idempotent"
    assert torch.equal(placed.on_grid(clean, clean), clean)


@given(threat=balls, seed=seeds)
@property_test
def test_rounding_spends_what_it_can(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    iterate = threat.project(anywhere(seed), clean)
    found = threat.on_grid(iterate, clean)
    assert (found - iterate).abs().max() <= 1 / LEVELS + FLOAT32
    back = (levels(found) - levels(clean)).abs() < (iterate - clean).abs() * LEVELS - 0.501
    rest = threat.eps - spent(threat, found, clean)
    price = 1 / LEVELS if isinstance(threat, L1) else 1.0
    full = back.flatten(1).any(1)
    assert (rest[full] < price).all(), "rounded inward only where the ball has no room"


@given(threat=balls, seed=seeds)
@property_test
def test_no_point_of_the_ball_is_nearer(threat: Threat, seed: int) -> None:
    """The variational inequality that defines a projection on a convex set."""
    clean, images = clean_images(seed).double(), anywhere(seed).double()
    found = threat.project(images, clean)
    other = threat.project(anywhere(seed + 1).double(), clean)
    inward = ((images - found) * (other - found)).flatten(1).sum(1)
    assert (inward <= 1e-5 * (1 + images.abs().flatten(1).sum(1))).all()


def test_closed_forms_away_from_the_box() -> None:
    clean = torch.full((1, 1, 1, 3), 0.5)
    change = torch.tensor([[[[0.3, -0.4, 0.0]]]])
    scaled = L2(0.25).project(clean + change, clean) - clean
    torch.testing.assert_close(scaled, change / 2)
    fallen = L1(0.3).project(clean + change, clean) - clean
    torch.testing.assert_close(fallen, torch.tensor([[[[0.1, -0.2, 0.0]]]]))
    kept = L0(1).project(clean + change, clean) - clean
    torch.testing.assert_close(kept, torch.tensor([[[[0.0, -0.4, 0.0]]]]))


def test_steps_are_steepest() -> None:
    images, gradient = torch.full((1, 1, 1, 4), 0.5), torch.tensor([[[[3.0, -4.0, 0.0, 1e-3]]]])
    moved = L2(2.0).ascend(images, gradient, 0.5) - images
    torch.testing.assert_close(moved.norm(), torch.tensor(1.0))
    torch.testing.assert_close(
        moved.flatten()[:3], torch.tensor([0.6, -0.8, 0.0]), atol=1e-3, rtol=0
    )
    moved = L1(2.0, share=0.5).ascend(images, gradient, 0.5) - images
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.5, -0.5, 0.0, 0.0]))
    black = images * torch.tensor([1.0, 0.0, 1.0, 1.0])
    moved = L1(2.0, share=0.25).ascend(black, gradient, 0.5) - black
    torch.testing.assert_close(moved.flatten(), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    for threat in (L2(1.0), L1(1.0), L0(2)):
        assert torch.equal(threat.ascend(images, torch.zeros_like(images), 1.0), images)


def test_patches_have_places_of_their_own() -> None:
    clean, generator = clean_images(0).repeat(10, 1, 1, 1), Generator().manual_seed(0)
    placed = Patch(2).placed(clean, generator)
    changed = (placed.start(clean, generator) != clean).any(1)
    assert len({tuple(picture.nonzero()[0].tolist()) for picture in changed}) > 4
    some = placed.rows(torch.tensor([3, 5]))
    found = some.on_grid(anywhere(1)[:2], clean[[3, 5]])
    assert not ((found != clean[[3, 5]]).any(1) & ~changed[[3, 5]]).any(), "the same places"
    fixed = Patch(2, (1, 2)).placed(clean, generator)
    outside = (fixed.start(clean, generator) != clean).any(1).any(0)
    outside[1:3, 2:4] = False
    assert not outside.any()


def test_a_universal_patch_is_pasted() -> None:
    clean, pattern = torch.zeros(2, 1, 4, 4), torch.arange(1.0, 9.0).view(2, 1, 2, 2)
    pasted = Patch(2, (1, 2)).placed(clean, Generator()).apply(pattern, clean)
    assert torch.equal(pasted[:, :, 1:3, 2:4], pattern)
    assert pasted.sum() == pattern.sum()


@given(threat=balls | budgets.map(Linf), seed=seeds)
@property_test
def test_universal_perturbations_are_limited(threat: Threat, seed: int) -> None:
    clean = clean_images(seed)
    pattern = threat.limit(anywhere(seed))
    threat.check(threat.on_grid(threat.apply(pattern, clean), clean), clean)
    torch.testing.assert_close(threat.limit(pattern), pattern)


TEXTS = {
    "linf:8/255": "8/255",
    "l2:1": "l2 1",
    "l1:10": "l1 10",
    "patch:16": "patch 16 px",
    "patch:16@4,4": "patch@4,4 16 px",
    "pixels:20": "pixels 20 px",
    "box": "pixel box",
    "edges:2": "2 edges",
    "image:linf:8/255": "image:linf 8/255",
    "sensor:linf:0.1sd": "sensor:linf 0.1sd",
    "question:swap:1": "question:swap 1 tokens",
    "image:linf:8/255+question:swap:1": "image:linf:8/255+question:swap:1",
}


@pytest.mark.parametrize(("text", "told"), TEXTS.items())
def test_threats_as_they_are_written(text: str, told: str) -> None:
    threat = parse_threat(text)
    assert str(threat) == text
    assert str(parse_threat(str(threat))) == text
    assert budget_text(threat.name, threat.eps) == told
    assert size_text("linf", 0.5 / 255) == "0.00196"
    assert budget_text(Nothing().name, Nothing().eps) == "none"


@pytest.mark.parametrize(
    "text",
    [
        *("", "l3:1", "l2", "l2:much", "l2:-1", "l2:inf", "l1:0", "l1:0.001", "linf:2", "patch:0"),
        *("patch:x", "patch:2@1", "patch:2@-1,0", "pixels:0", "pixels:1.5", "box:1"),
    ],
)
def test_texts_that_are_no_threat(text: str) -> None:
    with pytest.raises(UsageError):
        parse_threat(text).on(IMAGES)


def test_a_patch_must_fit() -> None:
    clean = clean_images(0)
    for patch in (Patch(6), Patch(3, (3, 0))):
        with pytest.raises(UsageError, match="does not fit on images of 5 x 5"):
            patch.placed(clean, Generator())


@pytest.mark.parametrize("text", ["linf:1/255", "l2:0.01", "l1:0.01", "patch:2", "pixels:1"])
def test_what_is_outside_is_refused(text: str) -> None:
    clean = clean_images(0)
    with pytest.raises(MeasurementError, match="are too much"):
        parse_threat(text).check(to_grid(1 - clean), clean)
    with pytest.raises(MeasurementError, match="off the grid"):
        parse_threat(text).check((clean + 0.3 / LEVELS).clamp(0, 1), clean)


def test_a_region_that_does_not_fit_is_refused_where_the_sizes_are_known() -> None:
    with pytest.raises(UsageError, match=r"window:16@60 does not fit on series of 64"):
        parse_threat("window:16@60").on(Series(1, 64, -1, 1))
    with pytest.raises(UsageError, match=r"patch:9 does not fit on images of 8 x None"):
        parse_threat("patch:9").on(Pixels((1, 8, None)))
    assert parse_threat("window:999").on(Series(1, None, -1, 1)).eps == 999
