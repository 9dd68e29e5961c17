"""``benchmarks/splatting.py``: what is drawn, how splats are counted, what poison may change."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.budgets import parse_number

ANGLE = 0.7
DISTANCES = st.floats(-4, 4)


@pytest.fixture(scope="module")
def splatting() -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import splatting

        return splatting


def splats(module: ModuleType, means, radii, opacities, colours):  # type: ignore[no-untyped-def]
    return module.Splats(
        torch.tensor(means), torch.tensor(radii).log(), *map(torch.logit, (opacities, colours))
    )


def test_one_splat_is_a_round_spot_where_the_camera_has_it(splatting: ModuleType) -> None:
    x, y, z, radius, opacity = 0.3, -0.2, 0.5, 0.25, 0.8
    colour = torch.tensor([[0.2, 0.5, 0.9]])
    one = splats(splatting, [[x, y, z]], [radius], torch.tensor([opacity]), colour)
    picture = splatting.rendered(one, splatting.seen_from(ANGLE, one.means))
    right = math.cos(ANGLE) * x + math.sin(ANGLE) * z
    side = splatting.SIDE
    for row, column in [(0, 0), (12, 20), (13, 22), (31, 5)]:
        across, down = ((2 * k + 1) / side - 1 for k in (column, row))
        squares = (across - right) ** 2 + (down - y) ** 2
        expected = opacity * math.exp(-squares / (2 * radius**2)) * colour[0]
        torch.testing.assert_close(picture[:, row, column], expected)


def test_the_nearer_of_two_splats_covers_the_other(splatting: ModuleType) -> None:
    colours, opacity = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]]), 0.75
    two = splats(
        splatting, [[0.0, 0.0, -0.5], [0.0, 0.0, 0.5]], [50.0] * 2, torch.full((2,), 0.75), colours
    )
    for angle, (near, far) in ((0.0, colours), (math.pi, colours.flip(0))):
        picture = splatting.rendered(two, splatting.seen_from(angle, two.means))
        expected = opacity * near + (1 - opacity) * opacity * far
        middle = splatting.SIDE // 2
        torch.testing.assert_close(picture[:, middle, middle], expected, atol=1e-3, rtol=0)


@given(data=st.data(), count=st.integers(1, 30), cap=st.integers(1, 60))
def test_each_splat_that_grows_is_one_more(
    splatting: ModuleType, data: st.DataObject, count: int, cap: int
) -> None:
    numbers = st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count)
    pull = 3 * splatting.PULL * torch.tensor(data.draw(numbers))
    opacities = 2 * splatting.FAINT * torch.tensor(data.draw(numbers))
    radii = (2 * splatting.LARGE * torch.tensor(data.draw(numbers))).clamp_min(0.01)
    before = splatting.drawn(count, 0.1, 0.5, seed=0)
    before = before._replace(opacities=opacities.logit(eps=1e-6), sizes=radii.log())
    after, grown, dropped = splatting.after_growth(before, pull, Generator().manual_seed(0), cap)
    seen = before.opacities.sigmoid() >= splatting.FAINT
    asking = int((seen & (pull > splatting.PULL)).sum())
    assert dropped == count - int(seen.sum())
    assert grown == min(asking, max(cap - (count - dropped), 0))
    assert [len(part) for part in after] == [count - dropped + grown] * 4
    assert len(after.means) <= max(cap, count)


def test_with_room_for_one_the_hardest_pulled_grows(splatting: ModuleType) -> None:
    before = splatting.drawn(3, 0.3, 0.5, seed=0)
    pull = splatting.PULL * torch.tensor([2.0, 5.0, 3.0])
    after = splatting.after_growth(before, pull, Generator().manual_seed(0), cap=4).splats
    torch.testing.assert_close(after.means[:2], before.means[[0, 2]])
    torch.testing.assert_close(after.sizes[2:].exp(), torch.full((2,), 0.3 / splatting.SHRUNK))


def test_a_small_splat_is_doubled_and_stays(splatting: ModuleType) -> None:
    before = splatting.drawn(1, 0.05, 0.5, seed=0)
    pull = torch.tensor([2 * splatting.PULL])
    after = splatting.after_growth(before, pull, Generator().manual_seed(0), cap=9).splats
    torch.testing.assert_close(after.means[:1], before.means)
    torch.testing.assert_close(after.sizes, before.sizes.expand(2))


@pytest.mark.slow
def test_a_fit_keeps_to_its_cap_and_looks_like_its_views(splatting: ModuleType) -> None:
    views, cap = splatting.views_of("detailed", "clean", "0"), splatting.START + 10

    def error(steps: int) -> Tensor:
        fitted, counts = splatting.fit(lambda number, _: views[number], 0, steps, cap)
        assert counts[: splatting.EVERY] == [splatting.START] * min(steps, splatting.EVERY)
        assert max(counts) <= cap
        assert steps <= splatting.EVERY or counts[-1] == cap
        shown = [splatting.view(fitted, angle) for angle in splatting.ANGLES]
        return (torch.stack(shown) - views).square().mean()

    assert error(steps=150) < error(steps=1) / 4


@pytest.mark.parametrize("eps", ["16/255", "64/255", "1"])
@pytest.mark.parametrize(
    "kind", ["noise", "pull along a fit", "total variation", "total variation along a fit"]
)
def test_poison_stays_within_its_budget(
    splatting: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str, eps: str
) -> None:
    monkeypatch.setattr(splatting, "fit", partial(splatting.fit, steps=8))
    clean = torch.stack([splatting.view(splatting.scene("smooth"), a) for a in splatting.ANGLES])
    before = clean.clone()
    views = splatting.POISONS[kind](clean, parse_number(eps, "eps"))
    assert torch.equal(clean, before)
    assert views.min() >= 0
    assert views.max() <= 1
    levels = views * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    changed = ((views - clean) * 255).round().abs().flatten(1).amax(1)
    most = round(255 * parse_number(eps, "eps"))
    assert (changed <= most).all()
    assert (changed > 0).all()
    assert splatting.total_variation(views) > splatting.total_variation(clean)


@pytest.mark.parametrize("eps", ["16/255", "64/255", "1"])
def test_total_variation_is_climbed_beyond_that_of_noise(splatting: ModuleType, eps: str) -> None:
    noisy, climbed = (
        splatting.views_of("smooth", kind, eps) for kind in ("noise", "total variation")
    )
    assert splatting.total_variation(climbed) > 1.02 * splatting.total_variation(noisy)


def test_noise_takes_all_of_its_budget(splatting: ModuleType) -> None:
    clean = torch.full((2, 3, splatting.SIDE, splatting.SIDE), 0.5)
    assert set(((splatting.noise(clean, 0.2) - clean) * 10).round().unique().tolist()) == {-2, 2}


def test_the_table_is_of_all_seeds(splatting: ModuleType) -> None:
    fixed = {"scene": "smooth", "psnr": 30.0, "variation": 9.0, "seconds": 1.0}
    rows = [
        {**fixed, "views": views, "eps": eps, "seed": seed, "splats": n, "splat_steps": 10 * n}
        for views, eps, counts in (("noise", "1", (30, 60)), ("clean", "0", (10, 20)))
        for seed, n in enumerate(counts)
    ]
    shown = splatting.table(rows).set_index("views")
    assert shown.index.tolist() == ["clean", "noise"]
    assert shown["splats"].to_dict() == {"clean": "15 (10 to 20)", "noise": "45 (30 to 60)"}
    assert shown["work, of clean"].to_dict() == {"clean": "×1.00", "noise": "×3.00"}
