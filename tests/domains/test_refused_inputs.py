"""What is no input, and what is said about it; sizes, grids and ranges: closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import reproducible
from hypothesis import given
from hypothesis import strategies as st

from effattack.domains import Domain, Parts, PartsBatch, Pixels, Series, Tokens
from effattack.domains.tokens import lengths
from effattack.errors import UsageError

SERIES = Series(2, 6, -3.0, 3.0)
PROMPTS = Tokens(10, 4)
PARTS = Parts(image=Pixels((1, 2, 2)), question=PROMPTS)
fine = torch.zeros(3, 2, 6)
ids = torch.tensor([[1, 2, -1], [3, 4, 5]])


@pytest.mark.parametrize(
    ("domain", "inputs", "message"),
    [
        (SERIES, [[0.0]], "series must be a torch tensor, not list"),
        (SERIES, fine.long(), r"series have dtype torch.int64, not float: convert them with"),
        (SERIES, fine[..., :5], r"shape \(3, 2, 5\), the victim takes \(B, 2, 6\): cut, pad or"),
        (SERIES, fine[0], r"the victim takes \(B, 2, 6\): series of one channel are series"),
        (SERIES, fine[..., None], "images .* need a victim of images"),
        (SERIES, fine[:0], "there are no series: the batch is empty"),
        (SERIES, fine / 0, "series contain NaN or infinity: drop or repair those series"),
        (SERIES, fine + 4, r"series lie in \[4, 4\], not in \[-3, 3\]: scale them"),
        (Series(1, None, 0, 1), torch.zeros(2, 1, 0), r"the victim takes \(B, 1, any\)"),
        (Pixels((3, None, None)), torch.zeros(2, 1, 4, 4), r"takes \(B, 3, any, any\): resize"),
        (PROMPTS, ids.float(), "prompts have dtype torch.float32, not integer: tokenize"),
        (PROMPTS, ids[0], r"shape \(3,\), the victim takes ids \(B, L\)"),
        (PROMPTS, ids[:0], "there are no prompts"),
        (PROMPTS, torch.tensor([[1], [-1]]), "prompt 1 is empty: drop it"),
        (PROMPTS, torch.tensor([[1, -1, 2]]), "prompt 0 has -1 before its last token"),
        (PROMPTS, torch.ones(1, 5).long(), "prompt 0 has more than 4 tokens: shorten it"),
        (PROMPTS, torch.tensor([[1, 10]]), r"prompt 0 has ids outside \[0, 10\)"),
        (PROMPTS, torch.tensor([[1, -2]]), r"prompt 0 has ids outside \[0, 10\)"),
        (PARTS, ids, r"must be a PartsBatch, not Tensor: use PartsBatch\({'image': ..., 'q"),
        (PARTS, PartsBatch({"image": fine}), "inputs have parts image, the victim takes image, "),
        (
            PARTS,
            PartsBatch({"image": torch.zeros(2, 1, 2, 2) - 1, "question": ids}),
            r"part image: images lie in \[-1, -1\], not in \[0, 1\]",
        ),
        (
            PARTS,
            PartsBatch({"image": torch.zeros(1, 1, 2, 2), "question": ids}),
            r"parts of different lengths, {'image': 1, 'question': 2}: they must pair up",
        ),
    ],
)
def test_what_is_no_input(domain: Domain, inputs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        domain.check(inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Series(0, 4, 0, 1), "channels = 0: give a whole number of at least 1"),
        (lambda: Series(1, 4, 1, 1), "low = 1, high = 1: give finite low < high"),
        (lambda: Series(1, 4, 0, float("inf")), "give finite low < high"),
        (lambda: Series(1, 4, 0, 1, step=0), "step = 0: give a positive number of at most"),
        (lambda: Series(1, 4, 0, 1, deviation=2.0), "deviation = 2.0: give a positive number"),
        (lambda: Series(1, 4, 0, 1e6, step=1e-3), "step = 0.001 is finer than float32 tells apart"),
        (lambda: Tokens(0, 4), "vocabulary = 0"),
        (lambda: Tokens(4, True), "longest = True"),
        (lambda: Parts(), "no part: give name=domain"),
        (lambda: Parts(image=3), "Parts: image: give name=domain"),  # type: ignore[arg-type]
    ],
)
def test_domains_that_are_none(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@reproducible
@given(st.floats(-3, 3, width=32), st.sampled_from([0.5, 0.013, 1 / 64]))
def test_a_series_is_snapped_to_the_nearest_step(value: float, step: float) -> None:
    domain = Series(1, 1, -3.0, 3.0, step=step)
    found = domain.snap(torch.full((1, 1, 1), value))
    top = -3.0 + step * int(6.0 / step + 1e-6)
    assert abs(found.item() - min(value, top)) <= step / 2 + 1e-6
    assert abs((found.item() + 3.0) / step - round((found.item() + 3.0) / step)) < 1e-3


def test_every_level_of_a_16_bit_sensor_is_itself() -> None:
    domain = Series(1, None, -32768, 32767, step=1.0)
    every = torch.arange(-32768, 32768, dtype=torch.float32).view(1, 1, -1)
    assert torch.equal(domain.snap(every), every)
    assert torch.equal(domain.unpack(domain.pack(every), every), every)


def test_the_smallest_change_of_a_series_is_a_distance() -> None:
    domain = Series(1, 2, -1.0, 1.0)
    clean = torch.zeros(1, 1, 2)
    tiny = torch.tensor([[[1e-44, 0.0]]])
    assert domain.distances(tiny, clean)["l2"].item() > 0
    assert domain.fingerprints(-clean) == domain.fingerprints(clean), "-0.0 is 0.0"


def test_distances_of_arrays_are_known() -> None:
    clean = torch.zeros(1, 2, 2, 2)
    images = clean.clone()
    images[0, :, 0, 0] = torch.tensor([3.0, 4.0]) / 255
    found = Pixels((2, 2, 2)).distances(images, clean)
    expected = {"linf": 4 / 255, "l2": 5 / 255, "l1": 7 / 255, "pixels": 1.0}
    assert {name: column.item() for name, column in found.items()} == pytest.approx(expected)


def test_images_of_any_size_are_told_apart_by_their_size() -> None:
    domain = Pixels((1, None, None))
    wide, tall = torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 4, 4)
    assert domain.fingerprints(wide) != domain.fingerprints(tall)
    assert domain.unpack(domain.pack(wide), tall).shape == wide.shape


@pytest.mark.parametrize(
    ("after", "before", "edits"),
    [
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 3, 7, 7], [1, 2, 3], 2),
        ([7, 1, 2, 3], [1, 2, 3], 1),
        ([1, 9, 3], [1, 2, 3], 1),
        ([2, 3, 1], [1, 2, 3], 2),
        ([4, 5, 6], [1, 2, 3], 3),
        ([1, 2, 3, 4, 5, 6], [9, 2, 4, 5, 8], 3),
    ],
)
def test_edits_are_counted(after: list[int], before: list[int], edits: int) -> None:
    domain = Tokens(10, 6)
    one, other = torch.tensor([after]), torch.tensor([before])
    assert domain.distances(one, other)["edits"].item() == edits
    assert domain.distances(other, one)["edits"].item() == edits


@reproducible
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=7),
    st.lists(st.integers(0, 2), min_size=1, max_size=7),
)
def test_edits_are_those_of_the_textbook(one: list[int], other: list[int]) -> None:
    table = [[max(i, j) for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            swapped = table[i - 1][j - 1] + (a != b)
            table[i][j] = min(swapped, table[i - 1][j] + 1, table[i][j - 1] + 1)
    found = Tokens(3, 7).distances(torch.tensor([one]), torch.tensor([other]))
    assert found["edits"].item() == table[-1][-1]


def test_tokens_that_are_kept_are_aligned_between_changes() -> None:
    clean = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 2, -1], [1, 2, 3, -1, -1]])
    after = torch.tensor([[7, 7, 2, 3, 4, 8], [9, 1, 3, 9, 2, 9], [1, 1, 2, 3, -1, -1]])
    kept = Tokens(10, 6).kept(after, clean)
    assert kept.tolist() == [[-1, 2, 3, 4, -1], [1, -1, 2, 4, -1], [1, 2, 3, -1, -1]]


@reproducible
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=7),
    st.lists(st.integers(0, 3), min_size=1, max_size=7),
)
def test_what_is_kept_stands_in_order(after: list[int], before: list[int]) -> None:
    (kept,) = Tokens(4, 7).kept(torch.tensor([after]), torch.tensor([before])).tolist()
    found = [(place, here) for here, place in enumerate(kept) if place >= 0]
    assert found == sorted(found)
    assert len({place for place, _ in found}) == len(found)
    assert all(after[place] == before[here] for place, here in found)
    longest = [[0] * (len(before) + 1) for _ in range(len(after) + 1)]
    for i, a in enumerate(after, 1):
        for j, b in enumerate(before, 1):
            longest[i][j] = max(
                longest[i - 1][j], longest[i][j - 1], longest[i - 1][j - 1] + (a == b)
            )
    if len(after) != len(before):
        assert len(found) == longest[-1][-1]


def test_a_prompt_is_as_long_as_what_stands_before_its_first_padding() -> None:
    given = torch.tensor([[4, 5, -1, 6], [7, -1, -1, -1]])
    assert lengths(given).tolist() == [2, 1]
    assert PROMPTS.snap(given).tolist() == [[4, 5, -1, -1], [7, -1, -1, -1]]
    assert PROMPTS.fingerprints(given[:1]) == PROMPTS.fingerprints(torch.tensor([[4, 5]]))


class Letters:
    """Two letters that stand together are one token, as in byte-pair encoding."""

    words = ("a", "b", "ab", "\n")

    def encode(self, text: str) -> list[int]:
        return [self.words.index(word) for word in self._split(text)]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[word] for word in ids)

    def _split(self, text: str) -> list[str]:
        if not text:
            return []
        first = text[:2] if text.startswith("ab") else text[:1]
        return [first, *self._split(text[len(first) :])]


def test_prompts_whose_text_has_other_ids_are_not_stable() -> None:
    domain = Tokens(4, 5, Letters(), special=[1])
    assert domain.stable(torch.tensor([[0, 1], [2, -1], [1, 0]])).tolist() == [False, True, True]
    assert domain.allowed().tolist() == [True, False, True, False], "1 is special, 3 a line break"
    assert set(domain.draw((50,), torch.Generator().manual_seed(0)).tolist()) == {0, 2}
    assert Tokens(4, 5).allowed().all()
    assert Tokens(4, 5).stable(torch.tensor([[0, 1]])).all()


def test_two_parts_with_one_column_are_measured_together() -> None:
    domain = Parts(left=Pixels((1, 1, 1)), right=Pixels((1, 1, 1)))
    clean = domain.snap(domain.example(1))
    moved = clean.replaced(left=clean["left"] - 3 / 255, right=clean["right"] + 4 / 255)
    expected = {"linf": 4 / 255, "l2": 5 / 255, "l1": 7 / 255, "pixels": 2}
    found = {name: column.item() for name, column in domain.distances(moved, clean).items()}
    assert found == pytest.approx(expected, abs=1e-6)
