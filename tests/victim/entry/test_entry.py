"""The real entry: values of the real codec, gradients of its stand-in, and the contract kept."""

from __future__ import annotations

import io
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from drawn import reproducible
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, features
from torch import Generator, Tensor
from toys import LinearSaver, embedded

from effattack import Opaque, audit
from effattack.domains import Series
from effattack.domains.pixels import to_grid
from effattack.errors import UsageError
from effattack.victim import Victim, load_victim
from effattack.victim.checks import INVARIANTS
from effattack.victim.digests import victim_digest
from effattack.victim.entry import (
    Entry,
    bits,
    center_crop,
    jpeg,
    median,
    random_crop,
    random_flip,
    read_steps,
    resize,
    webp,
)
from effattack.victim.entry.dct import soft_jpeg
from effattack.victim.smoothed import Smoothed

SMALL = settings(reproducible, max_examples=15)
PIPES: dict[str, list[Any]] = {
    "jpeg": [jpeg(50)],
    "resize": [resize(4)],
    "all": [resize(6, "bilinear"), center_crop(4), jpeg(90)],
    "drawn": [resize(6), random_crop(4), random_flip()],
    "squeezed": [resize(4), bits(5), median(3)],
}


def files(count: int, height: int, width: int, channels: int = 1, seed: int = 0) -> Tensor:
    drawn = torch.rand(count, channels, height, width, generator=Generator().manual_seed(seed))
    return to_grid(drawn)


def smooth(side: int, channels: int) -> Tensor:
    """(1, channels, side, side): waves, as photographs have them."""
    place = torch.linspace(0, 3, side)
    rows = [torch.sin(place[:, None] * (1 + c) + place[None] * 2) for c in range(channels)]
    return to_grid(0.5 + 0.3 * torch.stack(rows)[None])


def by_pillow(file: Tensor, change: Any) -> Tensor:
    """(C, H, W) through a function of Pillow images, without the code under test."""
    levels = np.uint8(np.rint(file.numpy() * 255)).transpose(1, 2, 0)
    image = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    found = np.asarray(change(image), dtype=np.float32)
    return torch.from_numpy(found.reshape(*found.shape[:2], -1)).permute(2, 0, 1) / 255


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file)


@SMALL
@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from([1, 3]), st.integers(1, 100))
def test_a_step_has_the_value_that_pillow_gives(
    height: int, width: int, channels: int, quality: int
) -> None:
    file = files(1, height, width, channels)
    found = jpeg(quality)(file, "")[0]
    torch.testing.assert_close(found, by_pillow(file[0], lambda one: as_jpeg(one, quality)))
    shorter = min(height, width)
    size = (8 * width // shorter, 8 * height // shorter)
    expected = by_pillow(file[0], lambda one: one.resize(size, Image.Resampling.BICUBIC))
    torch.testing.assert_close(resize(8)(file, "")[0], expected)


def test_another_seed_is_another_draw_of_the_same_entry() -> None:
    entry, file = Entry(LinearSaver(), PIPES["drawn"], seed=1), files(4, 9, 9)
    other = entry.seeded(2)
    torch.testing.assert_close(other.seeded(1).opened(file), entry.opened(file))
    assert (other.opened(file) != entry.opened(file)).any()
    assert (other.name, other.draws, other.victim) == (entry.name, entry.draws, entry.victim)


@SMALL
@given(st.integers(3, 20), st.integers(3, 20), st.sampled_from([1, 3]), st.sampled_from([3, 5]))
def test_the_median_has_the_value_of_pillow_and_of_its_stand_in(
    height: int, width: int, channels: int, side: int
) -> None:
    file = files(1, height, width, channels)
    found = median(side)(file, "")[0]
    torch.testing.assert_close(
        found, by_pillow(file[0], lambda one: one.filter(ImageFilter.MedianFilter(side)))
    )
    torch.testing.assert_close(median(side).soft(file, Random(0))[0], found)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", range(1, 9))
def test_fewer_bits_are_fewer_levels_each_the_nearest(depth: int, channels: int) -> None:
    file = (torch.arange(256.0) / 255).view(1, 1, 16, 16).expand(1, channels, 16, 16)
    found = bits(depth)(file, "")
    assert len(found.unique()) == 2**depth
    assert (found - file).abs().max() <= 0.5 / (2**depth - 1) + 0.5 / 255 + 1e-6


@pytest.mark.parametrize("pipe", PIPES)
def test_an_entry_keeps_the_contract(pipe: str) -> None:
    entry = Entry(LinearSaver(), PIPES[pipe])
    side = 4 if pipe == "jpeg" else 9
    for check in INVARIANTS:
        assert check(entry.checked, files(8, side, side)) == []


@SMALL
@given(st.sampled_from([*PIPES]), st.integers(4, 12), st.integers(0, 9))
def test_both_paths_of_any_file_agree_and_batch_mates_do_not_matter(
    pipe: str, side: int, seed: int
) -> None:
    entry = Entry(LinearSaver(), PIPES[pipe], seed=seed).double()
    side = 4 if pipe == "jpeg" else side
    batch = files(3, side, side, seed=seed).double()
    together = entry(batch)
    torch.testing.assert_close(together, torch.cat([entry(one) for one in batch.split(1)]))
    leaf = batch.clone().requires_grad_()
    torch.testing.assert_close(entry.trace(leaf).logits, together)


def test_work_is_that_of_the_victim_inside_and_pixels_are_those_declared() -> None:
    entry, file = Entry(LinearSaver(), PIPES["all"]), files(5, 10, 7)
    found, inside = audit(entry, file), audit(entry.victim, entry.opened(file))
    assert found.macs.tolist() == inside.macs.tolist()
    assert found.counts["declared_pixels"].tolist() == [70.0] * 5
    assert entry.ceiling(file).tolist() == [entry.max_macs] * 5
    assert entry.ceiling(file, "declared_pixels").tolist() == [70.0] * 5
    assert all(seconds["codec"] > 0 for seconds in found.outside)


def test_the_gradient_of_a_resize_is_that_of_pillows_own() -> None:
    """Bicubic resizing is linear: what a change does, its gradient foretells."""
    generator = Generator().manual_seed(1)
    file = to_grid(0.3 + 0.4 * torch.rand(1, 1, 20, 20, generator=generator))
    change = to_grid(0.2 * torch.rand(file.shape, generator=generator))
    weights = torch.randn(1, 1, 8, 8, generator=generator)
    leaf = file.clone().requires_grad_()
    ((resize(8)(leaf, "") * weights).sum()).backward()
    assert leaf.grad is not None
    foretold = (leaf.grad * change).sum()
    done = ((resize(8)(file + change, "") - resize(8)(file, "")) * weights).sum()
    assert abs(done - foretold) < 0.02 * weights.abs().sum() * change.mean()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("quality", [95, 75, 30])
def test_the_stand_in_of_jpeg_is_near_the_real_one(channels: int, quality: int) -> None:
    """The same transform, tables and rounding: within a few levels, of this quality alone."""
    file = smooth(40, channels)
    real = by_pillow(file[0], lambda one: as_jpeg(one, quality))
    off, coarser = (
        (soft_jpeg(file, each)[0] - real).abs().mean() * 255 for each in (quality, quality // 3)
    )
    assert off < min(2.5, coarser)


def test_gradients_through_jpeg_are_those_of_its_low_frequencies() -> None:
    """What JPEG throws away, no gradient asks for: the finest pattern is nearly invisible."""
    place = torch.arange(16)
    fine = ((place[:, None] + place[None]) % 2 * 2.0 - 1)[None, None]
    kept = []
    for pattern in (fine, torch.ones_like(fine)):
        leaf = smooth(16, 1).requires_grad_()
        (jpeg(20)(leaf, "") * pattern).sum().backward()
        assert leaf.grad is not None
        kept.append((leaf.grad * pattern).sum().abs() / pattern.numel())
    assert kept[0] < 0.1


def test_a_draw_is_fixed_by_seed_and_file() -> None:
    entry = Entry(LinearSaver(), [resize(8), random_crop(4)], seed=3)
    batch = files(16, 12, 12)
    again = entry.opened(batch.flip(0)).flip(0)
    assert torch.equal(entry.opened(batch), again)
    other = Entry(LinearSaver(), [resize(8), random_crop(4)], seed=4)
    assert not torch.equal(other.opened(batch), again)
    assert victim_digest(entry) != victim_digest(other)


def test_searches_see_means_over_draws_of_their_own() -> None:
    """Of a linear model, the mean of the gradients of its draws, one by one; work likewise."""
    entry = Entry(LinearSaver(), [random_flip()], draws=5)
    leaf = files(4, 4, 4).requires_grad_()
    found = entry.searched(7).trace(leaf)
    (gradient,) = torch.autograd.grad(found.logits.sum(), leaf)
    each, work = [], []
    for draw in range(5):
        trace = entry.seeded(f"search 7 {draw}").trace(leaf)
        each.append(torch.autograd.grad(trace.logits.sum(), leaf)[0])
        work.append(trace.macs)
    torch.testing.assert_close(gradient, torch.stack(each).mean(0))
    torch.testing.assert_close(found.macs, torch.stack(work).mean(0))
    assert not all(torch.equal(one, each[0]) for one in each)
    assert found.also["declared_pixels"].tolist() == [16] * 4
    assert Entry(LinearSaver(), PIPES["jpeg"]).searched(7).through, "nothing drawn: itself"


def test_a_victim_inside_that_draws_is_searched_on_its_own_draws() -> None:
    entry, file = Entry(Smoothed(LinearSaver(), 0.3), PIPES["jpeg"]), files(16, 4, 4)
    inside = entry.victim.searched(3)
    expected = inside.trace(entry.opened(file)).macs
    assert torch.equal(entry.searched(3).trace(file).macs, expected)
    assert (entry.trace(file).macs != expected).any()


def test_a_search_is_judged_on_a_draw_that_it_has_not_seen() -> None:
    entry = Entry(LinearSaver(), [random_flip()], draws=2)
    file = files(64, 4, 4)
    deployed = entry.opened(file)
    for draw in range(2):
        searched = entry.seeded(f"search 0 {draw}").opened(file)
        assert (searched != deployed).flatten(1).any(1).any()


def test_a_model_that_cannot_be_opened_may_stand_inside() -> None:
    model = Opaque(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)), (1, 4, 4))
    entry = Entry(model, PIPES["all"])
    assert entry.sees == "answers"
    assert entry.in_float64() is None
    assert audit(entry, files(2, 8, 8)).macs.tolist() == [48.0, 48.0]


def test_a_file_that_declares_too_much_is_refused() -> None:
    entry = Entry(LinearSaver(), [resize(4)], most_pixels=100)
    entry(files(1, 10, 10))
    for used in (entry, entry.trace, entry.domain.check):
        with pytest.raises(UsageError, match=r"declare 10 x 11 pixels, and at most 100 are taken"):
            used(files(1, 10, 11))


@pytest.mark.parametrize(
    ("through", "size", "wrong"),
    [
        ([], None, "give steps"),
        (["jpeg(90)"], None, "give steps"),
        ([center_crop(4)], (3, 9), "center_crop.4. of an image of 3 x 9 pixels"),
        ([resize(5)], None, "ends as 5 x 5, and toy takes"),
    ],
)
def test_steps_that_cannot_be(through: list[Any], size: tuple[int, int], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        Entry(LinearSaver(), through, size=size)


def test_other_inputs_than_images_are_refused() -> None:
    series = Opaque(torch.nn.Linear(7, 2), domain=Series(1, 7, 0, 1), task=LinearSaver().task)
    with pytest.raises(UsageError, match="files have 1 or 3 channels"):
        Entry(series, [jpeg(90)])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("rezise(3)", "unknown step 'rezise': did you mean resize"),
        ("resize(256", "cannot read the steps"),
        ("resize(open('x'))", "cannot read the steps"),
        ("resize(0)", "whole number of pixels"),
        ("resize(4, interpolation='best')", "unknown filter of resize 'best'"),
        ("jpeg(900)", "JPEG of quality 900: give a whole number from 1 to 100"),
        ("bits(9)", r"bits\(9\): give a whole number of bits per value, from 1 to 8"),
        ("median(4)", r"median\(4\): give an odd number of pixels, 3 or more"),
        ("jpeg()", "the step jpeg: .* correct its arguments"),
        ("most_pixels(-1)", "most_pixels among the steps: give one whole number"),
    ],
)
def test_texts_that_are_no_steps(text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        read_steps(text)


def test_a_codec_that_is_absent_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda feature: feature != "webp")
    jpeg(90)
    with pytest.raises(UsageError, match="this Pillow was built without WEBP: pip install"):
        webp(80)


def test_an_entry_by_name_is_the_one_made_in_python() -> None:
    text = "resize(40), center_crop(32), jpeg(90), most_pixels(5000), seed(2)"
    named = load_victim("digits_cnn_early_exit", through=text)
    inside: Victim = embedded("digits_cnn_early_exit")
    made = Entry(inside, [resize(40), center_crop(32), jpeg(90)], most_pixels=5000, seed=2)
    assert victim_digest(named) == victim_digest(made)
    assert named.name == "digits_cnn_early_exit through resize(40), center_crop(32), jpeg(90)"


def test_a_twin_stands_beside_a_file_alone() -> None:
    with pytest.raises(UsageError, match=r"--victim model.onnx --twin digits_vit_ats"):
        load_victim("digits_cnn_early_exit", twin="digits_vit_ats")
