"""Files that declare themselves large: the same picture, up to a side or to the cap."""

from __future__ import annotations

import pytest
import torch
from drawn import reproducible
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator
from toys import LinearSaver

from effattack import evaluate
from effattack.attacks import build
from effattack.domains import Pixels
from effattack.domains.pixels import enlarged, to_grid
from effattack.errors import NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.victim.entry import Entry, center_crop, resize

SIZES = st.integers(1, 9)


@reproducible
@given(SIZES, SIZES, st.integers(1, 40), st.sampled_from([None, 81, 400]), st.integers(0, 5))
def test_a_file_keeps_its_picture_its_proportions_and_the_cap(
    height: int, width: int, side: int, most: int | None, seed: int
) -> None:
    threat = parse_threat(f"size:{side}").on(Pixels((1, None, None), most=most))
    clean = to_grid(torch.rand(2, 1, height, width, generator=Generator().manual_seed(seed)))
    for found in (threat.start(clean, Generator().manual_seed(seed)), threat.largest(clean)):
        declared = found.shape[2] * found.shape[3]
        assert max(found.shape[2:]) <= max(side, height, width)
        assert declared <= max(most or 10**9, height * width)
        assert found.shape[2] == height * max(found.shape[2:]) // max(height, width)
    drawn = threat.start(clean, Generator().manual_seed(seed))
    threat.check(drawn, clean)
    assert threat.contains(clean, clean).all()
    down = torch.arange(height) * drawn.shape[2] // height
    assert drawn.shape[2] % height or torch.equal(drawn[:, :, down][..., :1], clean[..., :1])


def test_what_is_no_such_file() -> None:
    threat = parse_threat("size:8").on(Pixels((1, None, None)))
    clean = to_grid(torch.rand(1, 1, 4, 4, generator=Generator().manual_seed(0)))
    for other in (enlarged(clean, 9, 9), enlarged(clean, 8, 4), 1 - enlarged(clean, 8, 8)):
        assert not threat.contains(other, clean).any()


def test_the_cap_of_an_entry_stops_it() -> None:
    """Pixels are the count: 30 x 30 of 6 x 6 without a cap, 10 x 10 under one of 100."""
    images = to_grid(torch.rand(4, 1, 6, 6, generator=Generator().manual_seed(1)))
    ratios = []
    for most in (10_000, 100):
        entry = Entry(LinearSaver(), [resize(4), center_crop(4)], most_pixels=most)
        found = evaluate(
            entry, images, entry(images).argmax(1), ["LargeFile"],
            eps=parse_threat("size:30"), timed=0,
        )  # fmt: skip
        scores = found.judged_by("declared_pixels").scores().set_index("attack")
        ratios.append(scores.loc["LargeFile", "equals_n_requests"])
        assert scores.loc["LargeFile", "attack_success"] == 1.0
    assert ratios == [25.0, pytest.approx(100 / 36)]


def test_inputs_of_one_size_and_other_threats_are_refused() -> None:
    with pytest.raises(NotApplicable, match="put a resize inside its door"):
        build("LargeFile", LinearSaver(), parse_threat("size:30"))
    with pytest.raises(NotApplicable, match="LargeFile changes sizes"):
        build("LargeFile", Entry(LinearSaver(), [resize(4)]), 0.1)
    for text in ("size:0", "size:", "size:2.5"):
        with pytest.raises(UsageError):
            parse_threat(text)
