"""Premises that make a victim think longer: inside the budget, and as long as can be known."""

from __future__ import annotations

from itertools import islice
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import Decoder
from torch import Tensor

from effattack import attacks
from effattack.attacks.published.overthink import CHAIN
from effattack.attacks.searches.premises import PremiseEvolution, concatenated, size
from effattack.counting.tallies import Count, tally
from effattack.domains import Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.generation.sums import Characters
from effattack.tasks import Text
from effattack.threats import parse_threat
from effattack.victim import Trace, Victim

LONGEST, TOKENIZER = 12, Characters("0123456789;")
TEMPLATES = "77;|31;|8;|5;|123;"


class Thinker(Victim):
    """Thinks as many tokens as its prompt has digits summed up, and answers with the last digit;
    with nothing, if anywhere in the prompt there is a 7."""

    def __init__(self, tokenizer: Characters | None = TOKENIZER) -> None:
        super().__init__(
            name="thinker",
            family="generation",
            domain=Tokens(12, LONGEST, tokenizer, special=(0,)),
            task=Text(1),
            max_macs=1,
            counts={CHAIN: Count("chain token", lambda batch: 9.0 * lengths(batch))},
            currency=CHAIN,
        )

    def forward(self, batch: Tensor) -> Tensor:
        trace = self.trace(batch)
        tally(CHAIN, trace.also[CHAIN])
        return trace.logits

    def trace(self, batch: Tensor) -> Trace:
        last = batch.gather(1, lengths(batch)[:, None] - 1)
        return Trace(
            logits=last.masked_fill((batch == 8).any(1, keepdim=True), PAD),
            gates=(),
            macs=torch.ones(len(batch), dtype=torch.float64),
            also={CHAIN: thought(batch)},
        )


def thought(batch: Tensor) -> Tensor:
    """(B,) float64: digit d has id d + 1, the separator is 11."""
    digits = (batch != PAD) & (batch != 11)
    return ((batch - 1) * digits).sum(1).double()


def some(*texts: str) -> Tensor:
    rows = [torch.tensor(TOKENIZER.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


PROMPTS = some("12", "345", "6", "9;9;9;9;9;9")


def written(batch: Tensor) -> list[str]:
    return [TOKENIZER.decode(row[row != PAD].tolist()) for row in batch]


def build(name: str, **options: Any) -> attacks.Attack:
    told = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return attacks.build(f"{name}({told})", Thinker())


def test_the_longest_row_of_decoys_is_found() -> None:
    """Of five tokens: 77; and 8; think 22, and nothing else as much; 8; three times would not
    fit. The last prompt has room for one token, and no decoy is so short."""
    attack = build("OverThink", threat="prefix:5", templates=TEMPLATES)
    for found, prompt in zip(written(attack(PROMPTS)), written(PROMPTS), strict=True):
        assert found in (f"77;8;{prompt}", f"8;77;{prompt}", prompt)
        assert (found == prompt) == (prompt == "9;9;9;9;9;9")


def test_a_kept_answer_is_kept() -> None:
    """No 7 may stand anywhere: 8; twice thinks 16, and in the prefix no answer is others'."""
    options = {"threat": "prefix:5", "templates": TEMPLATES, "keep_prediction": True}
    found = build("OverThink", **options)(PROMPTS)
    assert written(found)[:3] == ["8;8;12", "8;8;345", "8;8;6"]
    victim = Thinker()
    bred = build("OverthinkHGA", **options)(PROMPTS)
    for batch in (found, bred):
        assert victim.task.agree(victim(PROMPTS), victim(batch)).all()
    assert (thought(bred) >= thought(found)).all()


def test_evolution_rewrites_premises_beyond_the_templates() -> None:
    """The most that three tokens can be is 999: 27 more."""
    options = {"threat": "prefix:3", "templates": "111|1;1"}
    bred = build("OverthinkHGA", generations=40, **options)(PROMPTS[:3])
    assert (thought(bred) - thought(PROMPTS[:3])).tolist() == [27, 27, 27]
    decoys = build("OverThink", queries=820, **options)(PROMPTS[:3])
    assert (thought(decoys) - thought(PROMPTS[:3])).tolist() == [3, 3, 3]


@pytest.mark.parametrize("threat", ["prefix:4", "suffix:4"])
@pytest.mark.parametrize("name", ["OverThink", "OverthinkHGA"])
def test_what_is_found_is_in_the_budget_and_the_same_again(name: str, threat: str) -> None:
    attack = build(name, threat=threat, templates=TEMPLATES)
    found = attack(PROMPTS)
    assert attack.threat.contains(found, PROMPTS).all()
    assert (thought(found) >= thought(PROMPTS)).all()
    assert (thought(found)[:3] > thought(PROMPTS)[:3]).all()
    assert torch.equal(found, attack(PROMPTS))


@pytest.mark.parametrize("name", ["OverThink", "OverthinkHGA"])
def test_a_prompt_does_not_depend_on_those_beside(name: str) -> None:
    """The first of a batch has the same chance whoever comes behind."""
    attack = build(name, threat="prefix:4", templates=TEMPLATES)
    if name == "OverthinkHGA":
        assert written(attack(PROMPTS[:1])) == written(attack(PROMPTS))[:1]
    assert thought(attack(PROMPTS[:1])) == thought(attack(PROMPTS))[:1]


def test_no_more_is_asked_than_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    trace = Thinker.trace

    def counted(self: Thinker, batch: Tensor) -> Trace:
        asked.append(len(batch))
        return trace(self, batch)

    monkeypatch.setattr(Thinker, "trace", counted)
    for name, options, queries in (
        ("OverThink", {"queries": 50}, 50),
        ("OverthinkHGA", {"pool": 10, "generations": 4}, 50),
    ):
        attack = build(name, threat="prefix:4", **options)
        asked.clear()
        attack(PROMPTS)
        assert sum(asked) == (1 + queries) * len(PROMPTS)


PREMISE = st.lists(st.integers(1, 11), min_size=1, max_size=4).map(tuple)


@settings(max_examples=50, deadline=None)
@given(bank=st.lists(PREMISE, max_size=5), room=st.integers(0, 9), seed=st.integers(0, 99))
def test_rows_of_premises_are_as_full_as_can_be(
    bank: list[tuple[int, ...]], room: int, seed: int
) -> None:
    fitting = [premise for premise in bank if len(premise) <= room]
    found = [*islice(concatenated(bank, room, Random(seed)), len(fitting) + 5)]
    assert found[: len(fitting)] == [(premise,) for premise in fitting]
    for row in found[len(fitting) :]:
        assert size(row) <= room
        assert all(len(premise) > room - size(row) for premise in fitting)
        assert set(row) <= set(bank)


@pytest.mark.parametrize(("threat", "wanted"), [("prefix:3", "8;12"), ("suffix:3", "128;")])
def test_words_are_added_where_there_is_room(threat: str, wanted: str) -> None:
    bound = parse_threat(threat).on(Thinker().domain)
    found = bound.added(PROMPTS, some("8;", "8;", "", "8;9"))
    assert written(found)[0] == wanted
    assert written(found)[2] == "6"
    assert lengths(found).tolist() == [4, 5, 1, LONGEST]
    assert bound.contains(found, PROMPTS).all()


@pytest.mark.parametrize("name", ["OverThink", "OverthinkHGA"])
def test_where_there_is_no_chain_it_does_not_apply(name: str) -> None:
    with pytest.raises(NotApplicable, match=r"decoder does not think before it answers.*apply"):
        attacks.build(f"{name}(threat='prefix:4')", Decoder())
    with pytest.raises(NotApplicable, match=r"adds premises, swap:2 adds nothing: give 'prefix:"):
        build(name, threat="swap:2")
    with pytest.raises(NotApplicable, match="the victim has no tokenizer"):
        attacks.build(f"{name}(threat='prefix:4')", Thinker(tokenizer=None))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("OverThink", {"queries": 0}, "queries = 0: the search needs at least one"),
        ("OverThink", {"templates": "Sort it.|x"}, "none of 2 templates can be written to thinker"),
        ("OverThink", {"templates": "12345"}, "in its own words, or a longer threat"),
        ("OverthinkHGA", {"pool": 1}, "a pool needs at least 2 members"),
        ("OverthinkHGA", {"mutation": 1.5}, "give numbers between 0 and 1"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, threat="prefix:4", **options)


def test_shares_and_sizes_are_those_of_the_paper() -> None:
    search = build("OverthinkHGA", threat="prefix:5").search
    assert search == PremiseEvolution(pool=20, generations=7, crossover=0.8, mutation=0.1)
