"""Slips of the typing hand and words out of order: what they may be, and how many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prompts import TokenExits, some_prompts
from toys import LinearSaver, embedded

from effattack.attacks import build
from effattack.attacks.wordings import BESIDE
from effattack.domains.tokens import as_wide, lengths, unpadded
from effattack.errors import NotApplicable, UsageError
from effattack.inputs.source import load_data, subset
from effattack.threats.typos import Kind, typos
from effattack.victim import Victim


@pytest.fixture(scope="module")
def victim() -> Victim:
    return embedded("text_exit")


@pytest.fixture(scope="module")
def prompts(victim: Victim) -> torch.Tensor:
    return subset(*load_data(None, victim), 20)[0]


def texts(victim: Victim, prompts: torch.Tensor) -> list[str]:
    return [victim.domain.tokenizer.decode(row.tolist()) for row in unpadded(prompts)]  # type: ignore[attr-defined]


def test_keys_are_beside_each_other() -> None:
    assert (BESIDE["q"], BESIDE["s"], BESIDE["m"], BESIDE["0"]) == ("w", "ad", "n", "9")
    assert all(key in BESIDE[other] for key in BESIDE for other in BESIDE[key])


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_slips_as_the_budget_has(count: int, victim: Victim, prompts: torch.Tensor) -> None:
    found = build(f"misspelling(threat='chars:{count}')", victim, seed=3)(prompts)
    made = [
        typos(before, after)
        for before, after in zip(texts(victim, prompts), texts(victim, found), strict=True)
    ]
    sizes = [len(slips) for slips in made]
    assert max(sizes) == count
    assert sum(size == count for size in sizes) > 0.8 * len(sizes)
    kinds = {slip.kind for slips in made for slip in slips}
    assert count == 1 or kinds == {*Kind}


def test_a_slip_hits_the_key_itself_or_one_beside_it(victim: Victim, prompts: torch.Tensor) -> None:
    found = build("misspelling(threat='chars:1')", victim)(prompts)
    pairs = list(zip(texts(victim, prompts), texts(victim, found), strict=True))
    slips = [(before, *typos(before, after)) for before, after in pairs if before != after]
    for before, slip in slips:
        here = before[slip.place : slip.place + 1]
        if slip.kind == Kind.REPLACE:
            assert slip.character in BESIDE[here]
        elif slip.kind == Kind.INSERT:
            assert slip.character in before[max(slip.place - 1, 0) : slip.place + 1]
    assert len(slips) > 15


def test_words_out_of_order_are_the_same_words(victim: Victim, prompts: torch.Tensor) -> None:
    found = build("word_order", victim)(prompts)
    moved = 0
    for before, after in zip(texts(victim, prompts), texts(victim, found), strict=True):
        assert sorted(before.split()) == sorted(after.split())
        moved += before != after
    assert moved > 15
    given, clean = as_wide(found, prompts)
    assert ((given != clean).sum(1) <= 4).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_pairs_of_tokens_change_places_without_a_tokenizer(count: int) -> None:
    victim, prompts = TokenExits(), some_prompts(40)
    found = build(f"word_order(threat='swap:{count}')", victim)(prompts)
    assert torch.equal(found.sort(1).values, prompts.sort(1).values)
    changed = (found != prompts).sum(1)
    assert (changed % 2 == 0).all()
    assert changed.max() == min(2 * (count // 2), 4)
    assert (changed <= lengths(prompts)).all()


@given(seed=st.integers(0, 1000))
def test_the_seed_decides(seed: int) -> None:
    victim, prompts = TokenExits(), some_prompts(6)
    one, other = (build("word_order", victim, seed=seed)(prompts) for _ in range(2))
    assert torch.equal(one, other)


def test_other_budgets_and_inputs_are_refused() -> None:
    with pytest.raises(UsageError, match=r"misspelling is no matter of swap:2: .*chars:2"):
        build("misspelling(threat='swap:2')", embedded("text_exit"))
    with pytest.raises(UsageError, match="word_order is no matter of suffix:2"):
        build("word_order(threat='suffix:2')", TokenExits())
    with pytest.raises(NotApplicable, match="no tokenizer"):
        build("misspelling", TokenExits())
    with pytest.raises(NotApplicable, match="word_order changes tokens"):
        build("word_order", LinearSaver())


def test_a_text_without_letters_stays(victim: Victim) -> None:
    ids = torch.tensor([victim.domain.tokenizer.encode("?")])  # type: ignore[attr-defined]
    assert torch.equal(build("misspelling", victim)(ids), ids)
    assert torch.equal(build("word_order", victim)(ids), ids)
