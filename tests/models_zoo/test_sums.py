"""Sums and sorts: the language is exact, and the generator that speaks it is what its card says."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import embedded

from effattack.domains.tokens import lengths
from effattack.errors import UsageError
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.generation import sums
from effattack.models_zoo.generation.generator import Generator
from effattack.victim import audit

DIGITS = st.text("0123456789", min_size=1, max_size=6)


@given(
    numbers=st.integers(1, 6).flatmap(
        lambda n: st.tuples(*[st.text("0123456789", min_size=n, max_size=n)] * 2)
    )
)
def test_columns_add_up(numbers: tuple[str, str]) -> None:
    *columns, total = sums.solved("+".join(numbers)).split(",")
    assert int(total) == sum(map(int, numbers))
    carried = [column[-1] for column in reversed(columns)]
    assert total == (columns[-1][:-1] + "".join(carried)).zfill(len(numbers[0]))


@given(digits=DIGITS)
def test_passes_sort(digits: str) -> None:
    passes = sums.solved(digits).split(",")
    assert passes[-1] == "".join(sorted(digits))
    assert all(row != passes[-1] for row in passes[:-1])
    assert len(passes) <= max(len(digits) - 1, 1)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("34+58", "12,9,92"), ("99+99", "18,19,198"), ("5291", "2519,2159,1259"), ("129", "129")],
)
def test_some_are_known(prompt: str, answer: str) -> None:
    assert sums.solved(prompt) == answer


def test_the_test_prompts_are_the_same_everywhere() -> None:
    prompts, answers = sums.scored_prompts()
    sums.DOMAIN.check(prompts)
    content = b"".join(sums.DOMAIN.pack(prompts)) + b"".join(sums.DOMAIN.pack(answers))
    assert hashlib.sha256(content).hexdigest()[:16] == "02830d84bafc59dc"


def test_no_prompt_is_in_two_splits() -> None:
    train, heldout, test = (set(sums.prompts(split)) for split in ("train", "heldout", "test"))
    assert not train & heldout
    assert not (train | heldout) & test


def test_every_prompt_can_be_written() -> None:
    assert bool(sums.DOMAIN.allowed()[1:].all())
    assert not sums.DOMAIN.allowed()[sums.END]
    assert sums.DOMAIN.stable(sums.scored_prompts()[0]).all()


def test_a_character_without_a_token_is_refused() -> None:
    with pytest.raises(UsageError, match="no token stands for 'x': write digits"):
        sums.Characters().encode("3x4")


def test_the_card_agrees() -> None:
    victim, card = embedded("sums_lm"), read_card("sums_lm")
    assert isinstance(victim, Generator)
    prompts, answers = sums.scored_prompts()
    trace = victim.trace(prompts)
    right = victim.task.right(victim.task.answer(trace.logits), answers).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=0.0051)
    assert card["accuracy"] >= 0.95
    assert trace.also["passes"].mean().item() == pytest.approx(card["clean_passes"], abs=0.3)
    assert card["clean_passes"] <= card["cap"] / 3, "there are savings to lose"
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=0.02)
    assert (round(victim.max_macs), victim.cap) == (card["max_macs"], card["cap"])
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]
    assert (WEIGHTS / "sums_lm.safetensors").stat().st_size < 2_000_000


def test_its_declared_work_is_executed_work() -> None:
    victim, (prompts, _) = embedded("sums_lm"), sums.scored_prompts()
    found, trace = audit(victim, prompts[:4]), victim.trace(prompts[:4])
    assert torch.equal(found.macs, trace.macs)
    assert torch.equal(found.counts["passes"], lengths(trace.logits).double())
