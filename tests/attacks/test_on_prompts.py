"""Attacks on prompts: inside the budget, near the exact worst case, and beyond random words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from prompts import CAP, LONGEST, VOCABULARY, Counted, Decoder, TokenExits, some_prompts
from torch import Generator, Tensor

from effattack import attacks
from effattack.attacks.published.text_exits import Alternating, NearlyUniform
from effattack.attacks.searches.words import WIDTH, CoordinateGradient
from effattack.certify.enumeration import enumeration
from effattack.domains import Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.errors import NotApplicable
from effattack.threats import parse_threat
from effattack.victim import Trace

HOUSE = ("Slowdown", "AutoSlow", "QueryAttack", "SAME", "WAFFLE")
THREATS = ("swap:1", "swap:2", "suffix:1", "suffix:3", "prefix:2")
PROMPTS = some_prompts(10)


def work(victim: TokenExits | Decoder, prompts: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(prompts))


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("name", HOUSE)
def test_what_is_found_is_in_the_budget_and_no_cheaper(name: str, threat: str) -> None:
    victim = TokenExits()
    attack = attacks.build(f"{name}(threat='{threat}')", victim)
    found = attack(PROMPTS)
    assert attack.threat.contains(found, PROMPTS).all()
    assert (work(victim, found) >= work(victim, PROMPTS)).all()
    assert torch.equal(found, attack(PROMPTS)), "the same seed finds the same prompts"


@pytest.mark.parametrize("victim", [TokenExits(), TokenExits(sure=0.5, seed=2), Decoder()])
@pytest.mark.parametrize("name", ["Slowdown", "AutoSlow"])
def test_the_worst_single_swap_is_found(name: str, victim: TokenExits | Decoder) -> None:
    threat = parse_threat("swap:1").on(victim.domain)
    exact = enumeration(victim, PROMPTS, threat)
    found = work(victim, attacks.build(f"{name}(threat='swap:1')", victim)(PROMPTS))
    gained, most = found.sum() - exact.clean.sum(), exact.most.sum() - exact.clean.sum()
    assert most > 0
    assert (found <= exact.most).all()
    assert gained >= 0.95 * most


def test_a_decoder_is_driven_on_by_its_currency() -> None:
    victim = Decoder()
    found = attacks.build("Slowdown(threat='suffix:2')", victim)(PROMPTS)
    random = attacks.build("noise(threat='suffix:2')", victim)(PROMPTS)
    assert work(victim, found).mean() > work(victim, random).mean()
    assert work(victim, found).max() == CAP


@pytest.mark.parametrize("threat", ["swap:2", "suffix:2"])
def test_a_kept_answer_is_kept(threat: str) -> None:
    victim = TokenExits()
    found = attacks.build(f"Slowdown(threat='{threat}', keep_prediction=True)", victim)(PROMPTS)
    assert torch.equal(victim(found).argmax(1), victim(PROMPTS).argmax(1))


def test_a_step_costs_as_much_as_five_gradients() -> None:
    attack = attacks.Slowdown(TokenExits(), threat="swap:1", steps=50)
    assert isinstance(attack.search, CoordinateGradient)
    assert (attack.search.steps, attack.search.width, attack.gradients) == (10, WIDTH, 10)


@pytest.mark.parametrize("threat", THREATS)
def test_a_word_is_put_where_it_is_asked_for_and_nothing_leaves_the_budget(threat: str) -> None:
    domain, generator = Tokens(VOCABULARY, LONGEST), Generator().manual_seed(0)
    bound = parse_threat(threat).on(domain)
    clean = some_prompts(30, seed=4)
    found = bound.start(clean, generator)
    for _ in range(10):
        free = bound.writable(clean)
        slots = torch.where(free, torch.rand(free.shape, generator=generator), -1.0).argmax(1)
        words = domain.draw((len(clean),), generator)
        found = bound.put(found, clean, slots, words, generator)
        assert bound.contains(found, clean).all()
        places = bound.editable(clean).gather(1, slots[:, None])
        assert torch.equal(found.gather(1, places)[:, 0], words)


def test_a_full_prompt_gains_no_word() -> None:
    victim = TokenExits()
    full = some_prompts(4, shortest=LONGEST, longest=LONGEST)
    for name in HOUSE:
        found = attacks.build(f"{name}(threat='suffix:2')", victim)(full)
        assert torch.equal(found[:, : full.shape[1]], full)
        assert (lengths(found) == LONGEST).all()


def test_same_wants_neighbouring_exits_to_differ() -> None:
    """By hand: stage 0 counts 0.1, stage 1, which was left at, 1; both say class 0."""
    stages = torch.tensor([[[2.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    logs = stages.log_softmax(2)[0]
    alternate = 0.1 * logs[0, 0] + 1.0 * logs[1, 1]
    uniform = 0.1 * logs[0].mean() / 2 + logs[1].mean() / 2
    found = Alternating(share=0.8).of_stages(stages, torch.tensor([1]))
    assert found.item() == pytest.approx(((0.8 * alternate + 0.2 * uniform) / 2).item())


def test_waffle_is_one_of_uniform_exits_and_zero_of_two_sure_ones() -> None:
    uniform, sure = torch.zeros(1, 3, 2), torch.tensor([50.0, 0.0]).expand(1, 3, 2)
    assert NearlyUniform().of_stages(uniform, torch.tensor([2])).item() == pytest.approx(1)
    assert NearlyUniform().of_stages(sure, torch.tensor([0])).item() == pytest.approx(0)


def test_a_tagger_is_a_mean_over_its_tokens() -> None:
    stages = torch.randn(2, 3, 4, 5, generator=Generator().manual_seed(0))
    there = torch.tensor([[True, True, False], [True, True, True]])
    gates = tuple(SimpleNamespace(active=there & (torch.rand(2, 3) > 0.5)) for _ in range(3))
    gates[0].reached = there
    trace: Trace = SimpleNamespace(stage_logits=None, aux={"stage_tags": stages}, gates=gates)
    found = NearlyUniform()(trace, None)
    pairs = zip(stages, there, strict=True)
    each = [NearlyUniform().of_stages(row[on], None).mean() for row, on in pairs]
    assert torch.allclose(found, torch.stack(each))


def test_what_shows_no_exits_is_refused() -> None:
    with pytest.raises(NotApplicable, match="decoder has no internal classifiers"):
        attacks.build("SAME(threat='swap:1')", Decoder())
    with pytest.raises(NotApplicable, match="SAME changes tokens, counted takes images"):
        attacks.SAME(Counted())


@pytest.mark.slow
def test_clean_prompts_of_all_lengths_may_be_padded_as_one_likes() -> None:
    victim = TokenExits()
    wide = torch.nn.functional.pad(PROMPTS, (0, 2), value=PAD)
    for name in HOUSE:
        attack = attacks.build(f"{name}(threat='suffix:1')", victim)
        assert victim.domain.pack(attack(wide)) == victim.domain.pack(attack(PROMPTS))
