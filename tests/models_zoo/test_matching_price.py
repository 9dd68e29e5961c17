"""What LightGlue costs in closed form, beside the multiplications written out; pairs of views."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Generator, Tensor, nn

from effattack.counting.macs import count_macs
from effattack.models_zoo.matching.pairs import (
    SHIFT,
    corner_error,
    corners_of,
    homography,
    moved,
    seen_from_elsewhere,
    warped,
)
from effattack.models_zoo.matching.price import MatcherPrice, aliked_macs

D, CHANNELS, POSITION, LAYERS = 6, 4, 2, 3
PRICE = MatcherPrice(width=D, entry=CHANNELS * D + POSITION, layers=LAYERS)


def matrix(*shape: int) -> Tensor:
    return torch.ones(shape)


def layer(m: int, n: int) -> None:
    """The products of one layer of the paper, with one head."""
    for k in (m, n):
        x = matrix(k, D)
        q = x @ matrix(D, 3 * D)
        q[:, :D] @ q[:, D : 2 * D].T @ q[:, 2 * D :] @ matrix(D, D)
        matrix(k, 2 * D) @ matrix(2 * D, 2 * D) @ matrix(2 * D, D)
    here, there = (matrix(k, D) @ matrix(D, D) for k in (m, n))
    values = [matrix(k, D) @ matrix(D, D) for k in (m, n)]
    alike = here @ there.T
    for k, message in ((m, alike @ values[1]), (n, alike.T @ values[0])):
        message @ matrix(D, D)
        matrix(k, 2 * D) @ matrix(2 * D, 2 * D) @ matrix(2 * D, D)


def matched(sizes: list[tuple[int, int]]) -> None:
    """All products, where these points enter each layer."""
    for k in sizes[0]:
        matrix(k, CHANNELS) @ matrix(CHANNELS, D)
        matrix(k, 2) @ matrix(2, POSITION // 2)
    for index, (m, n) in enumerate(sizes):
        if 0 in (m, n):
            return
        layer(m, n)
        sure = index < LAYERS - 1
        pruned = index < len(sizes) - 1
        for k in (m, n):
            for _ in range(sure + pruned):
                matrix(k, D) @ matrix(D, 1)
    m, n = sizes[-1]
    (matrix(m, D) @ matrix(D, D)) @ (matrix(n, D) @ matrix(D, D)).T
    for k in (m, n):
        matrix(k, D) @ matrix(D, 1)


@pytest.mark.parametrize(
    "sizes",
    [
        [(5, 7)],
        [(5, 7), (4, 7)],
        [(5, 7), (5, 6), (1, 2)],
        [(5, 7), (5, 7), (5, 7)],
        [(5, 7), (0, 3)],
        [(5, 7), (4, 4), (4, 0)],
    ],
)
def test_macs_are_those_of_the_products_written_out(sizes: list[tuple[int, int]]) -> None:
    assert PRICE.macs(sizes) == count_macs(matched, sizes)


def test_small_images_are_not_asked_where_nobody_prunes() -> None:
    never = MatcherPrice(D, PRICE.entry, LAYERS, least=100)
    sizes = [(5, 7)] * 3
    assert PRICE.macs(sizes) - never.macs(sizes) == 2 * 12 * D
    assert never.macs(sizes) - never.static(6) == 2 * 12 * D + attention(5, 7) - attention(6, 6)


def attention(m: int, n: int) -> int:
    """What depends on how the points are shared between the images."""
    return LAYERS * (2 * D * (m * m + n * n) + 3 * D * m * n) + D * m * n


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n_pos = 3
        self.offset_conv = nn.Sequential(nn.Conv2d(2, 6, 3), nn.SELU(), nn.Conv2d(6, 6, 1))
        self.sf_conv = nn.Conv2d(2, 2, 1, bias=False)
        self.agg_weights = nn.Parameter(torch.zeros(3, 2, 2))


class Extractor(nn.Module):
    """The parts that are paid for, by their names."""

    def __init__(self) -> None:
        super().__init__()
        for k in range(1, 5):
            setattr(self, f"block{k}", nn.Conv2d(3, 2, 3, padding=1))
            setattr(self, f"conv{k}", nn.Conv2d(2, 2, 1))
        self.score_head = nn.Sequential(nn.Conv2d(2, 1, 1), nn.SELU(), nn.Conv2d(1, 1, 3))
        self.desc_head, self.dkd = Head(), SimpleNamespace(radius=2)


def test_what_reads_an_image_is_paid_by_place_and_by_point() -> None:
    """33 x 40 pixels are padded to 64 x 64; blocks have 54 weights, others 4, the scores 11."""
    dense = 64 * 64 * (54 + 4 + 11) + 32 * 32 * 58 + 8 * 8 * 58 + 2 * 2 * 58
    point = 25 * 2 + (108 + 36) + 3 * 4 + 12
    assert aliked_macs(Extractor(), 33, 40, 10) == dense + 10 * point


def test_corners_go_where_a_homography_takes_them() -> None:
    corners = corners_of(48, 64)
    there = corners + torch.tensor([[3.0, -2], [1, 4], [-5, 2], [0, 1]], dtype=torch.float64)
    by = homography(corners, there)
    assert torch.allclose(moved(corners, by), there)
    assert corner_error(by, by, (48, 64)) == 0
    shifted = torch.eye(3, dtype=torch.float64)
    shifted[0, 2], shifted[1, 2] = 3, 4
    assert corner_error(shifted, torch.eye(3, dtype=torch.float64), (48, 64)) == pytest.approx(5)
    assert corner_error(None, by, (48, 64)) == float("inf")


def test_an_image_moved_by_whole_pixels_is_itself_there() -> None:
    image = torch.randint(0, 256, (1, 3, 12, 16), generator=Generator().manual_seed(0)) / 255
    by = torch.eye(3, dtype=torch.float64)
    by[0, 2], by[1, 2] = 2, -3
    found = warped(image, by)
    assert torch.allclose(found[..., :-3, 2:], image[..., 3:, :-2], atol=1e-6)


def test_views_are_drawn_by_their_seed_and_overlap() -> None:
    images = torch.rand(3, 3, 24, 32, generator=Generator().manual_seed(1))
    pairs, by = seen_from_elsewhere(images, seed=5)
    again, same = seen_from_elsewhere(images, seed=5)
    other, _ = seen_from_elsewhere(images, seed=6)
    assert torch.equal(pairs["second"], again["second"])
    assert torch.equal(by, same)
    assert not torch.equal(pairs["second"], other["second"])
    corners, reach = corners_of(24, 32), SHIFT * torch.tensor([32, 24]) + 1e-9
    assert all(((moved(corners, h) - corners).abs() <= reach).all() for h in by)
