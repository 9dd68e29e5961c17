"""Reasoners: a chain under a budget, then the answer, whatever the network would rather write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_generators import END, LONGEST, VOCABULARY, network, prompts
from torch import Tensor

from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.generator import Template
from effattack.models_zoo.generation.reasoner import Reasoner
from effattack.tasks import Conclusion, check_task
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check

BUDGET, ANSWER, OPEN, CLOSE = 6, 4, 9, 10
SAMPLED = {"temperature": 1.5, "seed": 3}

every_choice = pytest.mark.parametrize(
    "settings", [{}, pytest.param(SAMPLED, marks=pytest.mark.slow)], ids=["greedy", "sampled"]
)


def reasoner(weights: int = 2, **settings: Any) -> Reasoner:
    """With weights that make chains and answers of many lengths."""
    given = {"budget": BUDGET, "answer_cap": ANSWER, "marks": (OPEN, CLOSE), "end": END}
    given |= {"template": Template((3, 4), (5,)), **settings}
    return Reasoner(network(seed=weights), Tokens(VOCABULARY, LONGEST), **given)


def by_hand(victim: Reasoner, prompt: Tensor) -> list[int]:
    """Greedily, reading everything again at every step: the chain, then the answer."""
    ids = [3, 4, *prompt[prompt != PAD].tolist(), 5, OPEN]

    def likeliest(but: list[int]) -> int:
        state, _ = victim.network.read(victim.network.lift(torch.tensor([ids + written])))
        logits = victim.network.draw(state[0, -1])
        logits[but] = -torch.inf
        return int(logits.argmax())

    written: list[int] = []
    while CLOSE not in written:
        written.append(CLOSE if len(written) == BUDGET - 1 else likeliest(but=[END]))
    chain = len(written)
    while len(written) < chain + ANSWER and END not in written:
        written.append(likeliest(but=[]))
    return written


@every_choice
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check, settings: dict[str, Any]) -> None:
    check(reasoner(**settings), prompts(6))


@every_choice
@pytest.mark.parametrize("cached", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_declared_work_is_executed_work(cached: bool, settings: dict[str, Any]) -> None:
    victim, asked = reasoner(cached=cached, **settings), prompts(12, seed=1)
    found, trace = audit(victim, asked), victim.trace(asked)
    assert torch.equal(found.macs, trace.macs)
    for name in ("passes", "output_tokens", "cache_bytes", "chain_tokens"):
        assert torch.equal(found.counts[name], trace.also[name])
    assert len(found.counts["chain_tokens"].unique()) > 2
    assert (found.macs <= victim.ceiling(asked)).all()
    assert victim.ceiling(asked, "passes").tolist() == [BUDGET + ANSWER] * 12
    assert victim.ceiling(asked, "chain_tokens").tolist() == [BUDGET] * 12


@pytest.mark.parametrize("weights", [2, 4, 9])
def test_what_is_written_is_what_reading_everything_again_writes(weights: int) -> None:
    victim, asked = reasoner(weights), prompts(12, seed=2)
    for row, prompt in zip(victim(asked), asked, strict=True):
        assert row[row != PAD].tolist() == by_hand(victim, prompt)


@every_choice
def test_the_gate_tells_chain_and_answer(settings: dict[str, Any]) -> None:
    """By the text alone: how long its chain is, and what ended chain and answer."""
    asked = prompts(24, seed=3)
    seen: set[tuple[bool, bool]] = set()
    for weights in (2, 4, 9):
        victim = reasoner(weights, **settings)
        trace = victim.trace(asked)
        (gate,) = trace.gates
        for row, text in enumerate(trace.logits):
            ids = text[text != PAD].tolist()
            chain, answer = ids.index(CLOSE) + 1, len(ids) - ids.index(CLOSE) - 1
            forced, capped = chain == BUDGET, END not in ids
            seen.add((forced, capped))
            assert END not in ids[:chain]
            assert capped <= (answer == ANSWER)
            assert trace.also["chain_tokens"][row] == chain
            for name, ended in {
                "chain_capped": forced,
                "answer_capped": capped,
                "capped": forced or capped,
            }.items():
                assert bool(trace.aux[name][row]) == ended
            decided = [step for step in range(len(ids)) if step != BUDGET - 1 or not forced]
            decided = [step for step in decided if step != chain + ANSWER - 1]
            onward = [step for step in decided if ids[step] != END and step != chain - 1]
            assert gate.reached[row].nonzero()[:, 0].tolist() == decided
            assert gate.active[row].nonzero()[:, 0].tolist() == onward
            assert len(onward) == len(ids) - 2, "one mark, and one end or cap"
    assert len(seen) == 4, "chains and answers are ended by themselves and by their limits"


def test_the_cost_to_go_of_an_answer_ends_at_its_own_cap() -> None:
    victim, asked = reasoner(4), prompts(12, seed=3)
    trace, price = victim.trace(asked), victim.network.price
    (gate,) = trace.gates
    for row, size in enumerate(lengths(asked) + len(victim.template)):
        chain = int(trace.also["chain_tokens"][row])
        for step in gate.reached[row].nonzero()[:, 0].tolist():
            last = BUDGET + ANSWER if step < chain else chain + ANSWER
            spent = price.macs(size, torch.tensor(step + 1))
            assert gate.cost[row, step] == price.macs(size, torch.tensor(last)) - spent


def test_a_budget_of_one_answers_at_once() -> None:
    victim, asked = reasoner(budget=1), prompts(8)
    written = victim(asked)
    assert (written[:, 0] == CLOSE).all()
    assert victim.trace(asked).aux["chain_capped"].all()


def test_other_chance_moves_chain_and_answer() -> None:
    victim, asked = reasoner(**SAMPLED), prompts(12)
    again, other = victim.seeded(3), victim.seeded(4)
    assert torch.equal(victim(asked), again(asked))
    chains = [each.trace(asked).also["chain_tokens"] for each in (victim, other)]
    assert not torch.equal(*chains)


def test_the_answer_is_what_stands_behind_the_mark() -> None:
    task = Conclusion(CLOSE, cap=8, end=END)
    check_task(task)
    short = torch.tensor([[1, CLOSE, 5, 6, END, PAD, PAD], [1, 2, 3, 4, 5, 6, 7]])
    longer = torch.tensor([[7, 7, 7, CLOSE, 5, 6, END], [CLOSE, 1, CLOSE, 2, PAD, PAD, PAD]])
    answers, attacked = task.answer(short), task.answer(longer)
    assert answers.tolist() == [[5, 6, *[PAD] * 5], [PAD] * 7]
    assert attacked.tolist() == [[5, 6, *[PAD] * 5], [1, CLOSE, 2, *[PAD] * 4]]
    assert task.agree(answers, attacked).tolist() == [True, False]
    went_on = torch.tensor([[5, 6, 6]])
    assert not task.agree(answers[:1], went_on), "an answer that goes on is another one"
    assert task.right(attacked, torch.tensor([[5, 6], [1, 2]])).tolist() == [True, False]


def test_a_mark_that_ends_texts_is_refused() -> None:
    with pytest.raises(UsageError, match="the mark 0 ends texts, nothing stands behind it"):
        Conclusion(END, end=END)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": 0}, "budget = 0: give a whole number of at least 1"),
        ({"budget": True}, "budget = True: give a whole number"),
        ({"answer_cap": 0}, "answer_cap = 0: give a whole number of at least 1"),
        ({"marks": (9, 11)}, "the mark 11 that closes the chain is none of the 11 ids"),
        ({"marks": (-1, 10)}, "the mark -1 that opens the chain is none of the 11 ids"),
        ({"marks": (9,)}, "give two tokens, one that opens the chain and one that closes it"),
        ({"end": [END]}, "give the one token that ends an answer"),
        ({"marks": (9, 9)}, "must be three different tokens"),
        ({"marks": (9, END)}, "must be three different tokens"),
        ({"budget": 20}, "a budget of 20 and answers of 4 need a context of 34"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        reasoner(**settings)
