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

from effattack.budgets import LEVELS, check_eps
from effattack.errors import UsageError
from effattack.images import to_grid
from effattack.threats import Box, Linf, Threat

FLOAT32 = 1e-6
"""What rounding may add to a distance."""

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
        Linf(eps)


def test_budget_below_one_grey_level() -> None:
    with pytest.raises(UsageError, match="less than one step of 8-bit images"):
        Linf(0.9 / 255)
    Linf(1 / 255)


@pytest.mark.parametrize("eps", [8 / 255, 1, np.float64(0.1)])
def test_budgets_that_are(eps: float) -> None:
    assert check_eps(eps) == eps
    assert type(check_eps(eps)) is float


def test_repr_tells_the_budget() -> None:
    assert "eps=0.5" in repr(Linf(0.5))
