"""Sums and sorts that are thought about: exact in language, and its reasoner as its card says."""

from __future__ import annotations

import hashlib
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import embedded

from effattack import attacks
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.generation import sums, thoughts
from effattack.models_zoo.generation.reasoner import Reasoner
from effattack.victim import audit

PROBLEM = st.one_of(
    st.text("0123456789", min_size=1, max_size=4),
    st.tuples(st.integers(0, 99), st.integers(0, 99)).map(lambda two: "{:02}+{:02}".format(*two)),
)


@given(problems=st.lists(PROBLEM, min_size=1, max_size=3))
def test_a_chain_works_out_every_problem_and_the_last_is_concluded(problems: list[str]) -> None:
    prompt = ";".join(problems)
    parts = thoughts.thought(prompt).split(";")
    assert parts == [sums.solved(problem) for problem in problems]
    asked = problems[-1]
    result = sum(map(int, asked.split("+"))) if "+" in asked else int("".join(sorted(asked)))
    assert int(thoughts.concluded(prompt)) == result
    assert parts[-1].endswith(thoughts.concluded(prompt))


def test_some_are_known() -> None:
    assert thoughts.thought("5291;34+58") == "2519,2159,1259;12,9,92"
    assert thoughts.concluded("5291;34+58") == "92"
    assert thoughts.concluded("34+58;5291") == "1259"


def test_the_test_prompts_are_the_same_everywhere() -> None:
    prompts, answers = thoughts.scored_prompts()
    thoughts.DOMAIN.check(prompts)
    content = b"".join(thoughts.DOMAIN.pack(prompts)) + b"".join(thoughts.DOMAIN.pack(answers))
    assert hashlib.sha256(content).hexdigest()[:16] == "46ba800b404d51cb"


def test_questions_are_those_of_the_sums_and_no_prompt_is_in_two_splits() -> None:
    splits = {split: thoughts.prompts(split) for split in ("train", "heldout", "test")}
    for split, prompts in splits.items():
        assert tuple(prompt.split(";")[-1] for prompt in prompts) == sums.prompts(split)
        assert {each for prompt in prompts for each in prompt.split(";")} <= {*sums.prompts(split)}
    train, heldout, test = map(set, splits.values())
    assert not train & heldout
    assert not (train | heldout) & test


def test_every_chain_fits_the_budget_and_every_answer_the_cap() -> None:
    for split in ("train", "heldout", "test"):
        for prompt in thoughts.prompts(split):
            assert len(thoughts.thought(prompt)) + 1 <= thoughts.BUDGET
            assert len(thoughts.concluded(prompt)) + 1 <= thoughts.ANSWER
            assert len(prompt) <= 23


def test_marks_can_be_read_but_not_written() -> None:
    assert thoughts.TOKENIZER.encode("<>") == [*thoughts.MARKS]
    allowed = thoughts.DOMAIN.allowed()
    assert not allowed[[sums.END, *thoughts.MARKS]].any()
    assert int(allowed.sum()) == thoughts.VOCABULARY - 3
    with pytest.raises(UsageError, match="no token stands for '=': write digits, '\\+', ',', ';'"):
        thoughts.TOKENIZER.encode("3+4=")


def reasoner() -> Reasoner:
    return cast(Reasoner, embedded("sums_reasoner"))


def test_the_card_agrees() -> None:
    victim, card = reasoner(), read_card("sums_reasoner")
    prompts, answers = thoughts.scored_prompts()
    trace = victim.trace(prompts)
    right = victim.task.right(victim.task.answer(trace.logits), answers).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=0.0051)
    assert card["accuracy"] >= 0.95
    for name in ("passes", "chain_tokens"):
        assert trace.also[name].mean().item() == pytest.approx(card[f"clean_{name}"], abs=0.3)
    assert card["clean_passes"] <= card["cap"] / 3, "there are savings to lose"
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=0.02)
    assert (round(victim.max_macs), victim.cap) == (card["max_macs"], card["cap"])
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]
    assert (WEIGHTS / "sums_reasoner.safetensors").stat().st_size < 300_000


def test_its_chains_are_the_exact_ones() -> None:
    victim, (prompts, _) = reasoner(), thoughts.scored_prompts()
    written = victim(prompts)
    texts = [thoughts.TOKENIZER.decode(row[row != PAD].tolist()) for row in written]
    exact = [
        text == f"{thoughts.thought(prompt)}>{thoughts.concluded(prompt)}"
        for text, prompt in zip(texts, thoughts.prompts("test"), strict=True)
    ]
    assert sum(exact) >= 0.95 * len(exact)


def test_its_declared_work_is_executed_work() -> None:
    victim, (prompts, _) = reasoner(), thoughts.scored_prompts()
    found, trace = audit(victim, prompts[:4]), victim.trace(prompts[:4])
    assert torch.equal(found.macs, trace.macs)
    for name in ("passes", "chain_tokens"):
        assert torch.equal(found.counts[name], trace.also[name])


@pytest.mark.slow
def test_a_decoy_is_thought_about_and_the_answer_stays() -> None:
    victim, (prompts, _) = reasoner(), thoughts.thoughts("heldout")
    prompts, build = prompts[:12], attacks.build
    options = "threat='prefix:5', keep_prediction=True"
    decoyed = build(f"OverThink(queries=24, {options})", victim)(prompts)
    bred = build(f"OverthinkHGA(pool=8, generations=3, {options})", victim)(prompts)
    clean = victim.trace(prompts)
    for found in (decoyed, bred):
        trace = victim.trace(found)
        assert (trace.also["passes"] >= clean.also["passes"]).all()
        longer = trace.also["chain_tokens"] - clean.also["chain_tokens"]
        assert longer.mean() > 5, "a chain more, of a decoy of five tokens"
        answers = (victim.task.answer(each.logits) for each in (clean, trace))
        assert victim.task.agree(*answers).all()
