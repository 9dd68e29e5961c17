"""Published losses on generators against their equations, and their attacks on prompts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import Counted, TokenExits, some_prompts
from torch import Generator, Tensor

from effattack import attacks
from effattack.attacks.objectives import Goal
from effattack.attacks.published.generators import repeated
from effattack.attacks.published.generators_losses import (
    GENERATORS,
    EndLogits,
    NeitherEndNorWritten,
    Repeating,
    Verbose,
)
from effattack.domains import Tokens
from effattack.domains.tokens import PAD
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.generation import embedded, sums
from effattack.tasks import Text
from effattack.threats import parse_threat
from effattack.victim import Trace
from effattack.victim.writing import STATES, STEPS

PUBLISHED = ("NMTSloth", "VerboseSamples", "LoopLLM")
VOCABULARY, END = 4, 0
PROBABILITIES = torch.tensor(
    [[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64
)
"""Of three steps, the third of which writes the end token."""
WRITTEN = torch.tensor([[3, 1, END, PAD]])
DOMAIN = Tokens(VOCABULARY, 5, special=(END,))
TO_WRITE = SimpleNamespace(name="writer", domain=DOMAIN, task=Text(4, END), vocabulary=VOCABULARY)
GOAL: Goal = SimpleNamespace(victim=TO_WRITE)  # type: ignore[assignment]


def trace_of(logits: Tensor, written: Tensor, states: Tensor | None = None) -> Trace:
    aux = {STEPS: logits, STATES: torch.zeros_like(logits) if states is None else states}
    return Trace(written, (), torch.zeros(len(written)), aux=aux)


def by_hand(states: Tensor | None = None) -> Trace:
    """A fourth step did not happen: what stands there is noise."""
    logits = torch.cat([PROBABILITIES.log() + 3.0, torch.full((1, 4), 5.0)])
    return trace_of(logits[None], WRITTEN, states)


def test_nmtsloth_wants_neither_the_end_nor_what_is_written() -> None:
    """At the last step both are the same token: half of 0.7 + 0.7."""
    crosses = [-math.log(1 - (0.1 + 0.4)), -math.log(1 - (0.25 + 0.25)), -math.log(1 - 1.4 / 2)]
    found = NeitherEndNorWritten()(by_hand(), GOAL)
    assert found.item() == pytest.approx(-sum(crosses) / 3)


def test_loopllm_wants_any_word_of_its_segment() -> None:
    loss = Repeating(2, seed=3)
    segment = loss.segment(DOMAIN).tolist()
    assert len(set(segment)) == 2
    assert END not in segment
    shares = PROBABILITIES[:, segment].sum(1)
    found = loss(by_hand(), GOAL)
    assert found.item() == pytest.approx(shares.log().mean().item())
    assert Repeating(2, seed=3).segment(DOMAIN).tolist() == segment
    assert len({tuple(Repeating(2, seed=s).segment(DOMAIN).tolist()) for s in range(9)}) > 1


def test_slothspeech_wants_no_end_token_at_any_step() -> None:
    """Logits are those of the shares and 3; at the last step .7 is first, .1 second."""
    ends = math.log(0.1) + math.log(0.25) + math.log(0.7) + 9
    assert EndLogits()(by_hand(), GOAL).item() == pytest.approx(math.log(0.1) + 3 - ends)


def test_a_segment_has_a_word() -> None:
    with pytest.raises(UsageError, match="length = 0: a segment has at least one word"):
        attacks.build("LoopLLM(segment=0, threat='suffix:2')", embedded.sums_lm())


def test_the_three_verbose_terms() -> None:
    """States of two orthogonal rows have their lengths as singular values."""
    states = torch.zeros(1, 4, 2, dtype=torch.float64)
    states[0, 0, 0], states[0, 1, 1], states[0, 3] = 3.0, 4.0, 100.0
    apart = [-sum(math.log(p * 4) for p in row) / 4 for row in PROBABILITIES.tolist()]
    end = (0.1 + 0.25 + 0.7) / 3
    expected = 2 * math.log(7) - math.log(sum(apart) / 3) - 0.5 * math.log(end)
    found = Verbose(end=0.5, diversity=2.0)(by_hand(states), GOAL)
    assert found.item() == pytest.approx(expected)


def test_the_gradient_of_the_verbose_terms_is_the_papers_up_to_a_factor() -> None:
    draw = Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    mixed = torch.randn(4, 5, generator=draw, dtype=torch.float64)
    written = torch.tensor([[2, 1, END]])
    ours = Verbose()(trace_of(logits, written, logits @ mixed), GOAL).sum()
    shares = logits.softmax(-1)
    unsure = torch.nn.functional.kl_div(
        shares.log(), torch.full_like(shares, 0.25), reduction="none"
    )
    unsure, end = unsure.sum(-1).mean(), shares[..., END].mean()
    norm = torch.linalg.svdvals((logits @ mixed)[0]).sum()
    weights = (unsure / end / 20).detach().abs(), (unsure / norm / 1).detach().abs()
    theirs = unsure + weights[0] * end - weights[1] * norm
    (mine,) = torch.autograd.grad(ours, logits, retain_graph=True)
    (its,) = torch.autograd.grad(theirs, logits)
    assert torch.allclose(-mine * unsure.detach(), its)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), sharp=st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
def test_losses_are_finite_and_know_neither_mates_nor_steps_that_did_not_happen(
    seed: int, sharp: float
) -> None:
    draw = Generator().manual_seed(seed)
    logits = sharp * torch.randn(3, 4, VOCABULARY, generator=draw)
    states = torch.randn(3, 4, 5, generator=draw)
    written = torch.randint(1, VOCABULARY, (3, 4), generator=draw)
    sizes = torch.randint(1, 5, (3, 1), generator=draw)
    written = written.masked_fill(torch.arange(4) >= sizes, PAD)
    for loss in (*GENERATORS, EndLogits()):
        leaf, above = logits.clone().requires_grad_(), states.clone().requires_grad_()
        found = loss(trace_of(leaf, written, above), GOAL)
        gradients = torch.autograd.grad(found.sum(), (leaf, above), allow_unused=True)
        assert found.isfinite().all()
        for gradient in gradients:
            if gradient is not None:
                assert gradient.isfinite().all()
                assert not gradient[written == PAD].any()
        alone = [
            loss(trace_of(logits[i, None], written[i, None], states[i, None]), GOAL)
            for i in range(3)
        ]
        assert torch.allclose(torch.cat(alone), found, rtol=1e-4, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(step=st.integers(0, 2), more=st.floats(0.1, 3))
def test_a_likelier_end_is_worse_for_all(step: int, more: float) -> None:
    before = by_hand(torch.eye(4, dtype=torch.float64)[None])
    logits = before.aux[STEPS].clone()
    logits[0, step, END] += more
    after = trace_of(logits, WRITTEN, before.aux[STATES])
    for loss in (NeitherEndNorWritten(), Verbose(end=1e3), Repeating(), EndLogits()):
        assert loss(after, GOAL) < loss(before, GOAL)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_writes_no_text_is_refused(name: str) -> None:
    with pytest.raises(NotApplicable, match="token_exits writes no text, or shows no logits"):
        attacks.build(f"{name}(threat='swap:1')", TokenExits())
    with pytest.raises(NotApplicable, match=f"{name} changes tokens, counted takes images"):
        attacks.attack_class(name)(Counted())


@pytest.mark.parametrize("threat", ["prefix:2", "suffix:3", "swap:2"])
def test_a_segment_is_repeated_as_far_as_the_budget_goes(threat: str) -> None:
    bound = parse_threat(threat).on(Tokens(13, 8))
    clean = some_prompts(20, seed=2)
    found = repeated(clean, bound, torch.tensor([11, 12]), Generator().manual_seed(0))
    assert bound.contains(found, clean).all()
    if threat == "suffix:3":
        expected = torch.tensor([11, 12, 11])
        for row, before in zip(found, clean, strict=True):
            size = int((before != PAD).sum())
            assert torch.equal(row[size : size + 3], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_each_beats_noise_on_prompts_that_nobody_trained_on(name: str) -> None:
    victim, prompts = embedded.sums_lm(), sums.sums("heldout")[0][:10]
    attack = attacks.build(f"{name}(threat='suffix:3', steps=15)", victim)
    found, noise = attack(prompts), attacks.build("noise(threat='suffix:3')", victim)(prompts)
    with torch.no_grad():
        spent = [victim.spent(victim.trace(each)) for each in (prompts, noise, found)]
    clean, random, attacked = spent
    assert attack.threat.contains(found, prompts).all()
    assert (attacked >= clean).all()
    assert attacked.mean() > 1.5 * random.mean()
