"""Finite budgets against brute force over all prompts that there are."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from drawn import generators, reproducible, tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import TokenExits, some_prompts
from torch import Generator
from toys import LinearSaver, grey_images

from effattack.certify.enumeration import enumeration
from effattack.domains import Tokens
from effattack.errors import NotApplicable
from effattack.threats import parse_threat
from effattack.threats.edits import Edits, Prefix, Suffix, Swaps

DOMAIN = Tokens(4, 4, special=[3])
EVERYTHING = [
    list(ids) for size in range(1, 5) for ids in product(range(4), repeat=size)
]  # all prompts of the domain


@st.composite
def small_edits(draw: st.DrawFn) -> Edits:
    make = draw(st.sampled_from((Suffix, Prefix, Swaps)))
    return make(draw(st.integers(1, 3))).on(DOMAIN)


@settings(reproducible, max_examples=40)
@given(small_edits(), generators())
def test_the_list_holds_all_of_the_budget_and_nothing_else(
    threat: Edits, generator: Generator
) -> None:
    for clean in DOMAIN.singles(tokens(DOMAIN, 2, generator)):
        everything = DOMAIN.join([torch.tensor([ids]) for ids in EVERYTHING])
        inside = threat.contains(everything, clean.expand(len(everything), -1))
        expected = set(DOMAIN.pack(everything[inside]))
        batches = list(threat.every(clean, 7))
        found = [row for batch in batches for row in DOMAIN.pack(batch)]
        assert set(found) == expected
        assert len(found) <= threat.members(clean)
        assert all(len(batch) <= 7 for batch in batches)


@pytest.mark.parametrize("text", ["swap:1", "suffix:2", "prefix:1"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_case_is_the_worst_of_all(text: str, seed: int) -> None:
    victim, prompts = TokenExits(seed=seed), some_prompts(4, seed=seed, longest=3)
    found = enumeration(victim, prompts, parse_threat(text))
    threat = parse_threat(text).on(victim.domain)
    for row, clean in enumerate(victim.domain.singles(prompts)):
        works = [victim.trace(batch).macs.max().item() for batch in threat.every(clean, 50)]
        assert found.most[row] == max(works)
    assert (found.most >= found.clean).all()
    assert (found.most <= found.ceiling).all()
    assert found.error == 0
    assert found.known.all()


def test_nothing_to_change_is_a_list_of_one() -> None:
    victim, images = LinearSaver(), grey_images(4)
    found = enumeration(victim, images, parse_threat("none"))
    assert torch.equal(found.most, victim.trace(images).macs)
    assert found.certified_retained == 1


def test_what_is_too_large_is_refused_with_its_size() -> None:
    victim, prompts = TokenExits(), some_prompts(2, shortest=3, longest=3)
    size = 2 * (1 + 3 * 13)  # TokenExits has 13 words, all of which can be written
    with pytest.raises(NotApplicable, match=f"admits {size} prompts"):
        enumeration(victim, prompts, parse_threat("swap:1"), most=50)
    with pytest.raises(NotApplicable, match=r"no list of its images.*smoothing"):
        enumeration(LinearSaver(), grey_images(2), parse_threat("linf:1/255"))
