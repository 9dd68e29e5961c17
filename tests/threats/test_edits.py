"""What an attacker of text may change: closed forms, and laws on prompts drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from drawn import generators, reproducible, some, tokens
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.domains import Parts, PartsBatch, Pixels, Tokens
from effattack.domains.properties import same
from effattack.domains.tokens import lengths
from effattack.errors import MeasurementError, NotApplicable, UsageError
from effattack.threats import Threat, parse_threat
from effattack.threats.edits import Edits, Prefix, Suffix, Swaps

DOMAIN = Tokens(9, 7, special=[0, 8])
MAKES: tuple[Callable[[int], Edits], ...] = (Suffix, Prefix, Swaps)


@st.composite
def edits(draw: st.DrawFn) -> Edits:
    make, count = draw(st.sampled_from(MAKES)), draw(st.integers(1, 4))
    return make(count).on(DOMAIN)


@reproducible
@given(edits(), generators())
def test_where_a_search_starts_is_inside_and_valid(threat: Edits, generator: Generator) -> None:
    clean = tokens(DOMAIN, 3, generator)
    started = threat.start(clean, generator)
    threat.check(started, clean)
    assert (DOMAIN.distances(started, clean)["edits"] <= threat.count).all()
    assert threat.contains(clean, clean).all()


@reproducible
@given(edits(), generators())
def test_whatever_a_search_proposes_is_put_inside(threat: Edits, generator: Generator) -> None:
    clean, anything = tokens(DOMAIN, 3, generator), tokens(DOMAIN, 3, generator)
    for proposed in (anything, DOMAIN.disturbed(threat.largest(clean), generator)):
        found = threat.on_grid(proposed, clean)
        threat.check(found, clean)
        assert same(threat.on_grid(found, clean), found)
    inside = threat.start(clean, generator)
    packed = DOMAIN.pack(threat.on_grid(inside, clean))
    assert packed == DOMAIN.pack(inside), "what is inside stays"


@reproducible
@given(edits(), generators())
def test_no_prompt_of_the_budget_is_longer_than_the_largest(
    threat: Edits, generator: Generator
) -> None:
    clean = tokens(DOMAIN, 3, generator)
    largest = threat.largest(clean)
    threat.check(largest, clean)
    assert (lengths(largest) >= lengths(threat.start(clean, generator))).all()
    gained = 0 if isinstance(threat, Swaps) else threat.count
    assert torch.equal(lengths(largest), (lengths(clean) + gained).clamp(max=DOMAIN.longest))


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor(rows)


CLEAN = ids([1, 2, 3, -1], [4, 5, -1, -1])


@pytest.mark.parametrize(
    ("text", "inputs", "inside"),
    [
        ("suffix:2", ids([1, 2, 3, 6, 7], [4, 5, 6, -1, -1]), [True, True]),
        ("suffix:1", ids([1, 2, 3, 6, 7], [4, 5, 6, -1, -1]), [False, True]),
        ("suffix:2", ids([1, 2, 4, -1], [6, 4, 5, -1]), [False, False]),
        ("suffix:2", ids([1, 2, 3, 8], [4, 5, 0, -1]), [False, False]),
        ("prefix:2", ids([6, 7, 1, 2, 3], [6, 4, 5, -1, -1]), [True, True]),
        ("prefix:1", ids([6, 7, 1, 2, 3], [4, 5, 6, -1, -1]), [False, False]),
        ("prefix:2", ids([0, 1, 2, 3], [4, 5, -1, -1]), [False, True]),
        ("swap:2", ids([6, 2, 7, -1], [6, 7, -1, -1]), [True, True]),
        ("swap:1", ids([6, 2, 7, -1], [6, 5, -1, -1]), [False, True]),
        ("swap:2", ids([1, 2, 3, 6], [4, -1, -1, -1]), [False, False]),
        ("swap:2", ids([0, 2, 3, -1], [4, 5, -1, -1]), [False, True]),
    ],
)
def test_what_a_budget_holds(text: str, inputs: Tensor, inside: list[bool]) -> None:
    threat = parse_threat(text).on(DOMAIN)
    assert str(threat) == text
    assert threat.contains(inputs, CLEAN).tolist() == inside
    if not all(inside):
        with pytest.raises(MeasurementError, match=f"prompts outside the budget {text}"):
            threat.check(inputs, CLEAN)


def test_where_tokens_may_change() -> None:
    assert Suffix(2).on(DOMAIN).editable(CLEAN).tolist() == [[3, 4], [2, 3]]
    assert Prefix(2).on(DOMAIN).editable(CLEAN).tolist() == [[0, 1], [0, 1]]
    assert Suffix(2).on(DOMAIN).largest(CLEAN).tolist() == [[1, 2, 3, 1, 1], [4, 5, 1, 1, -1]]
    assert Prefix(2).on(DOMAIN).largest(CLEAN).tolist() == [[1, 1, 1, 2, 3], [1, 1, 4, 5, -1]]


def test_swaps_stand_anywhere_and_no_padding_is_swapped() -> None:
    threat = Swaps(1).on(DOMAIN)
    clean = ids([1, 2, 3, -1]).repeat(200, 1)
    started = threat.start(clean, Generator().manual_seed(0))
    changed = (started != clean).any(0).tolist()
    assert changed == [True, True, True, False]


class Pairs:
    """Digits; two ones in a row are written together."""

    def encode(self, text: str) -> list[int]:
        return [9 if word == "11" else int(word) for word in text.replace("11", "9")]

    def decode(self, ids: list[int]) -> str:
        return "".join("11" if word == 9 else str(word) for word in ids)


def test_prompts_whose_text_has_other_ids_do_not_count() -> None:
    domain = Tokens(10, 6, Pairs())
    threat = Suffix(2).on(domain)
    clean = ids([2, 1], [1, 1])
    assert threat.contains(ids([2, 1, 1], [1, 1, 3]), clean).tolist() == [False, False]
    assert threat.contains(ids([2, 1, 3], [1, 1, -1]), clean).tolist() == [True, True]
    assert threat.on_grid(ids([2, 1, 1], [1, 1, -1]), clean).tolist() == clean.tolist()
    many = ids([2, 1]).repeat(300, 1)
    started = threat.start(many, Generator().manual_seed(0))
    assert (lengths(started) == 4).all(), "drawn again until their text has these ids"
    threat.check(started, many)


@pytest.mark.parametrize("make", MAKES)
def test_counts_that_are_none(make: Callable[[object], Threat]) -> None:
    with pytest.raises(UsageError, match="give a whole number of at least 1"):
        make(0)
    with pytest.raises(UsageError, match="give a whole number of at least 1"):
        make(1.5)


def test_threats_of_another_kind_do_not_apply() -> None:
    with pytest.raises(NotApplicable, match=r"suffix:3 changes tokens, which images are not: wr"):
        parse_threat("suffix:3").on(Pixels((1, 4, 4)))
    with pytest.raises(NotApplicable, match=r"linf:8/255 changes arrays, which prompts are not"):
        parse_threat("linf:8/255").on(DOMAIN)


PARTS = Parts(image=Pixels((1, 2, 2)), question=DOMAIN)


@reproducible
@given(
    st.sampled_from(["image:linf:8/255", "question:swap:2", "image:l2:1+question:suffix:3"]),
    generators(),
)
def test_one_part_or_several_change_and_no_other(text: str, generator: Generator) -> None:
    threat = parse_threat(text).on(PARTS)
    assert str(threat) == text
    clean = PARTS.snap(some(PARTS, 3, generator))
    started = threat.on_grid(threat.start(clean, generator), clean)
    threat.check(started, clean)
    for name in ("image", "question"):
        assert name in text or same(started[name], clean[name])
    anything = threat.on_grid(PARTS.snap(some(PARTS, 3, generator)), clean)
    threat.check(anything, clean)
    threat.check(threat.largest(clean), clean)


def test_a_change_of_another_part_is_outside() -> None:
    clean = PARTS.snap(PARTS.example(2))
    other = PartsBatch({"image": clean["image"], "question": clean["question"].flip(1)})
    threat = parse_threat("image:linf:8/255").on(PARTS)
    assert (threat.name, threat.eps) == ("image:linf", 8 / 255)
    assert not threat.contains(other, clean).any()
    with pytest.raises(NotApplicable, match="changes sound, which is no part of the inputs: name"):
        parse_threat("sound:linf:8/255").on(PARTS)
    with pytest.raises(NotApplicable, match="suffix:2 changes tokens, which images are not"):
        parse_threat("image:suffix:2").on(PARTS)
