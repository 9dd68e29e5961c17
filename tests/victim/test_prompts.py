"""Victims of prompts keep the contract, and what gradients are taken in is the words'."""

from __future__ import annotations

import pytest
import torch
from prompts import CAP, CLASSES, END, VOCABULARY, WIDTH, Counted, Decoder, TokenExits, some_prompts
from torch import Tensor

from effattack.domains import Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.errors import ContractError
from effattack.tasks import Classes
from effattack.victim import Victim, audit
from effattack.victim.checks import INVARIANTS, Check, check_declared
from effattack.victim.leaf import word_gradients

MAKES = (TokenExits, Decoder)


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(make: type[Victim], check: Check) -> None:
    check(make(), some_prompts(6))


@pytest.mark.parametrize("make", MAKES)
def test_declared_work_is_executed_work(make: type[Victim]) -> None:
    victim, prompts = make(), some_prompts(8, seed=1)
    found, trace = audit(victim, prompts), victim.trace(prompts)
    assert torch.equal(found.macs, trace.macs)
    assert len(set(found.macs.tolist())) > 1, "prompts of other lengths and decisions cost other"
    assert (found.macs <= victim.ceiling(prompts)).all()


def test_work_of_the_exits_is_known() -> None:
    prompts = torch.tensor([[3, 4, 5, PAD]])
    always, never = TokenExits(sure=1.1), TokenExits(sure=0.0)
    assert audit(always, prompts).macs.item() == 2 * WIDTH * CLASSES + 3 * WIDTH**2
    assert audit(never, prompts).macs.item() == WIDTH * CLASSES
    assert audit(always, prompts).macs.item() == always.ceiling(prompts).item()


def test_passes_of_the_decoder_are_told() -> None:
    victim, prompts = Decoder(), some_prompts(12, seed=2)
    outputs = victim(prompts)
    told = victim.trace(prompts).also["passes"]
    assert torch.equal(lengths(outputs).double(), told)
    assert len(set(told.tolist())) > 1
    capped = told == CAP
    ended = (outputs == END).any(1)
    assert (capped | ended).all()


def test_padding_costs_nothing_and_changes_no_answer() -> None:
    for victim in (TokenExits(), Decoder()):
        prompts = some_prompts(6)
        wide = torch.nn.functional.pad(prompts, (0, 3), value=PAD)
        assert torch.equal(victim.trace(wide).macs, victim.trace(prompts).macs)
        close = victim.task.close(victim(wide), victim(prompts), 1e-6)
        assert close.all()


def one_hot_gradient(victim: TokenExits | Decoder, prompts: Tensor, places: Tensor) -> Tensor:
    """Of the gates' margins, in one-hot rows of every word: (B, k, vocabulary)."""
    leaf = victim.lift(prompts, places)
    ids = prompts.gather(1, places)
    rows = torch.nn.functional.one_hot(ids, VOCABULARY).double().requires_grad_()
    leaf = leaf._replace(rows=rows @ victim.words.weight)
    return torch.autograd.grad(pushed(victim, prompts, leaf), rows)[0]


def pushed(victim: Victim, prompts: Tensor, leaf: object) -> Tensor:
    trace = victim.trace(prompts, leaf)
    return sum(gate.margin.masked_fill(~gate.reached, 0).sum() for gate in trace.gates)


@pytest.mark.parametrize("make", MAKES)
def test_gradients_of_the_leaf_are_those_of_one_hot_rows(make: type[TokenExits]) -> None:
    victim, prompts = make().double(), some_prompts(4, shortest=3)
    places = torch.tensor([[0, 2], [1, 2], [2, 0], [0, 1]])
    leaf = victim.lift(prompts, places)
    rows = leaf.rows.detach().requires_grad_()
    gradient = torch.autograd.grad(pushed(victim, prompts, leaf._replace(rows=rows)), rows)[0]
    found = word_gradients(victim.lift, gradient, torch.arange(VOCABULARY), chunk=5)
    expected = one_hot_gradient(victim, prompts, places)
    assert found.shape == (4, 2, VOCABULARY)
    assert found.abs().max() > 0
    assert torch.allclose(found, expected, atol=1e-12)


def test_a_leaf_is_read_in_place_of_the_ids() -> None:
    victim, prompts = TokenExits(), some_prompts(3, shortest=3)
    places = torch.tensor([[1], [0], [2]])
    other = prompts.scatter(1, places, 7)
    leaf = victim.lift(other, places)
    assert torch.equal(victim.trace(prompts, leaf).logits, victim.trace(other).logits)
    assert torch.equal(victim.trace(prompts, leaf).macs, victim.trace(other).macs)


def test_a_count_moves_while_macs_do_not() -> None:
    victim = Counted(currency="boxes")
    images = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)])
    images[0, 0, 0] = 1.0
    found = audit(victim, images)
    assert found.macs.tolist() == [18, 18]
    assert found.counts["boxes"].tolist() == [3, 9]


class Forgetful(Tokens):
    """Stores a prompt without its last token."""

    def pack(self, inputs: Tensor) -> list[bytes]:
        return [row[:-4] for row in super().pack(inputs)]


class Nobody(Classes):
    """Agrees with nobody."""

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        return a != a


def test_a_domain_or_task_that_breaks_its_laws_is_named_before_anything_runs() -> None:
    victim = TokenExits()
    victim.domain = Forgetful(VOCABULARY, 8)
    with pytest.raises(ContractError, match="Forgetful breaks a law of domains: unpack"):
        check_declared(victim)
    victim = TokenExits()
    victim.task = Nobody(CLASSES)
    with pytest.raises(ContractError, match=r"Nobody breaks a law of tasks: agree\(a, a\)"):
        check_declared(victim)


def test_a_victim_of_images_lifts_nothing() -> None:
    victim = Counted()
    with pytest.raises(ContractError, match="Counted lifts no words: implement lift"):
        victim.lift(victim.example(1), torch.zeros(1, 1).long())
