"""Engorgio: its loss against its equation, its read-outs, and what it refuses."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prompts import Decoder, TokenExits
from torch import Generator, Tensor

from effattack import attacks
from effattack.attacks.effort import metered
from effattack.attacks.published.engorgio import Relaxed, _gumbel
from effattack.attacks.searches.words import GRADIENT
from effattack.domains.tokens import PAD, lengths
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.generation import embedded, sums
from effattack.models_zoo.generation.generator import Generator as Writes
from effattack.tasks import Text
from effattack.threats import parse_threat
from effattack.victim.leaf import Leaf
from effattack.victim.writing import steps_of

PROMPTS = sums.sums("heldout")[0][:6]


def work(victim: Any, prompts: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(prompts))


def test_the_loss_by_hand() -> None:
    """Two words, two steps; the model says (1/2, 1/2), then (1/4, 3/4), whatever it reads."""
    logits = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]).log()
    read: list[Tensor] = []

    def continued(prompts: Tensor, text: Tensor, leaf: Leaf) -> tuple[Tensor, Tensor]:
        read.extend([text, leaf.rows])
        return logits, logits

    victim = SimpleNamespace(continued=continued, cap=2, task=Text(2, 0))
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    place, word = PROMPTS[:1, :1], torch.tensor([1])
    relaxed = Relaxed(victim, PROMPTS, PROMPTS, place, word, rows[word], rows)
    text = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]]).log()
    theta, still = [torch.zeros(1, 1, 1), text], [torch.zeros(1, 1, 1), torch.zeros(1, 2, 2)]
    mentored = -(math.log(0.5) + 0.3 * math.log(0.25) + 0.7 * math.log(0.75)) / 2
    found = relaxed.loss(theta, still, tau=1.0, alpha=3.0)
    assert found.item() == pytest.approx(mentored + 3 * (0.5 + 0.25) / 2)
    assert torch.allclose(read[0], torch.tensor([[[0.9, 0.1]]])), "the first token is read, softly"
    assert torch.allclose(read[1], torch.tensor([[[0.0, 1.0]]])), "the only word is in its place"
    relaxed.loss(theta, still, tau=0.5, alpha=3.0)
    assert torch.allclose(read[2][0, 0, 0], torch.tensor(0.81 / 0.82)), "1/τ is a power"


@pytest.mark.parametrize("threat", ["suffix:2", "prefix:2"])
def test_sure_distributions_are_the_words_themselves(threat: str) -> None:
    """Then the loss is that of the text which a hard prompt leads to, here of two tokens."""
    whole = embedded.sums_lm()
    victim = Writes(
        whole.network, sums.DOMAIN, cap=2, end=sums.END, template=whole.template
    ).requires_grad_(False)
    bound = parse_threat(threat).on(victim.domain)
    relaxed = Relaxed.of(PROMPTS, bound, victim)
    chosen = torch.randint(13, (len(PROMPTS), 2), generator=Generator().manual_seed(0))
    prompts = relaxed.read_out(one_hot(chosen, 13), bound, Generator().manual_seed(0))
    trace = victim.trace(prompts)
    assert (trace.logits != PAD).all(), "every text has two tokens"
    assert torch.equal(lengths(prompts), lengths(PROMPTS) + 2)
    theta = [1e3 * one_hot(chosen, 13), 1e3 * one_hot(trace.logits, 14)]
    found = relaxed.loss(theta, [torch.zeros_like(part) for part in theta], tau=1.0, alpha=2.0)
    logs = steps_of(trace, victim)[0].log_softmax(-1)
    own = -logs.gather(2, trace.logits[:, :, None]).mean((1, 2))
    assert torch.allclose(found, own + 2 * logs[:, :, sums.END].exp().mean(1), atol=1e-4)


def one_hot(ids: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(ids, count).float()


def test_noise_is_that_of_gumbel() -> None:
    theta = torch.tensor([0.3, -1.0, 1.2]).expand(40_000, 3)
    chosen = (theta + _gumbel(theta, Generator().manual_seed(0))).argmax(1)
    shares = chosen.bincount(minlength=3) / 40_000
    assert torch.allclose(shares, theta[0].softmax(0), atol=0.01)


@pytest.mark.parametrize("read_out", ["argmax", "sample"])
def test_what_is_found_is_in_the_budget_and_no_cheaper(read_out: str) -> None:
    victim = embedded.sums_lm()
    for threat in ("suffix:2", "prefix:1"):
        name = f"Engorgio(steps=3, read_out='{read_out}', threat='{threat}')"
        attack = attacks.build(name, victim)
        found = attack(PROMPTS)
        assert attack.threat.contains(found, PROMPTS).all()
        assert (work(victim, found) >= work(victim, PROMPTS)).all()
        assert torch.equal(found, attack(PROMPTS)), "the same seed finds the same prompts"


def test_a_step_costs_a_gradient_and_a_prompt() -> None:
    victim, effort = metered(embedded.sums_lm())
    attack = attacks.build("Engorgio(steps=4, threat='suffix:2')", victim)
    assert isinstance(attack, attacks.Engorgio)
    assert attack.descents * (GRADIENT + 1) == 4 * GRADIENT
    attack(PROMPTS)
    assert effort.prompts == len(PROMPTS) * (1 + attack.descents * (GRADIENT + 1)), "1: the clean"


@pytest.mark.slow
def test_it_beats_noise_on_prompts_that_nobody_trained_on() -> None:
    victim, prompts = embedded.sums_lm(), sums.sums("heldout")[0][:12]
    found = attacks.build("Engorgio(steps=30, threat='suffix:3')", victim)(prompts)
    noise = attacks.build("noise(threat='suffix:3')", victim)(prompts)
    assert work(victim, found).mean() > 1.5 * work(victim, noise).mean()


def test_what_does_not_apply_is_refused() -> None:
    victim = embedded.sums_lm()
    with pytest.raises(NotApplicable, match="swap:2 adds none: give suffix:10 or prefix:10"):
        attacks.build("Engorgio(threat='swap:2')", victim)
    for other in (TokenExits(), Decoder()):
        with pytest.raises(NotApplicable, match=f"{other.name} writes no text, or cannot be asked"):
            attacks.build("Engorgio(threat='suffix:2')", other)
    with pytest.raises(UsageError, match="read_out = 'best': give 'argmax' or 'sample'"):
        attacks.build("Engorgio(read_out='best', threat='suffix:2')", victim)
    with pytest.raises(UsageError, match=r"rate = 0, .* give positive numbers"):
        attacks.build("Engorgio(rate=0, threat='suffix:2')", victim)
