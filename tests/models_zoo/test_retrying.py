"""Whisper that decodes again: when, what stands, what that costs, and what gradients see of it."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from effattack import attacks
from effattack.domains.tokens import PAD
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.sound.retrying import Checks, Retrying, Tried
from effattack.threats import parse_threat
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check
from tests.models_zoo.test_whisper import CAP, END, NOTHING, recordings, victim

CHECKS = Checks(ratio=1.05, likely=-0.5)
"""At which about half of the texts of the random model fail."""


def retrying(**settings: Any) -> Retrying:
    usual = {"temperatures": (0.4, 1.0), "checks": CHECKS, "cap": CAP, "never": NOTHING}
    return Retrying(victim().network, end=END, first=[6], **{**usual, **settings})


def by_hand(mine: Retrying, heard: Tensor) -> tuple[list[Tensor], list[bool]]:
    """The greedy text and those that are drawn, and whether each fails, by definition."""
    states, texts, failed = mine.network.hear(heard), [], []
    for rule in mine.rules:
        draws, written, total = rule.choice.draws(heard, CAP), [], 0.0
        while len(written) < CAP and END not in written:
            rows, memory = mine.begun(states, None)
            before = torch.tensor([written], dtype=torch.long)
            state, _ = mine.network.read(torch.cat([rows, mine.network.lift(before)], 1), memory)
            logits = mine.network.draw(state[:, -1])
            logits[:, [*NOTHING, *([6, END] if not written else [])]] = -torch.inf
            word = rule.choice.choose(logits, draws[:, len(written)]).item()
            total += logits.log_softmax(1)[0, word].item()
            written.append(word)
        words = [word for word in written if word != END]
        said = " ".join(map(str, words)).encode()
        repetitive = len(said) / len(zlib.compress(said)) > CHECKS.ratio
        texts.append(torch.tensor(written))
        failed.append(repetitive or total / (len(words) + 1) < CHECKS.likely)
        if not failed[-1]:
            break
    return texts, failed


@torch.no_grad()
def test_what_fails_is_drawn_again() -> None:
    mine, heard = retrying(), recordings(40)[30:]
    trace, standing = mine.trace(heard), mine(heard)
    steps, retries = trace.gates
    for row, one in enumerate(heard.split(1)):
        texts, failed = by_hand(mine, one)
        assert retries.active[row].tolist() == [len(texts) > 1, len(texts) > 2]
        assert trace.also["passes"][row] == sum(map(len, texts))
        assert trace.also["retries"][row] == len(texts) - 1
        if not failed[-1]:
            assert torch.equal(standing[row, : len(texts[-1])], texts[-1])
    assert len(trace.also["retries"].unique()) == 3
    assert torch.equal(steps.reached.sum(1) > CAP - 2, trace.also["passes"] > CAP)


@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check) -> None:
    assert not check(retrying(), recordings(4))


def test_declared_work_is_executed_work() -> None:
    mine, heard = retrying(), recordings(40)[35:]
    found, trace = audit(mine, heard), mine.trace(heard)
    assert torch.equal(found.macs, trace.macs)
    for name in ("passes", "output_tokens", "cache_bytes", "retries"):
        assert torch.equal(found.counts[name], trace.also[name])


def test_work_is_that_of_texts_less_what_is_heard_once() -> None:
    mine, heard = retrying(), recordings(12, seed=1)
    trace, price, sizes = mine.trace(heard), mine.network.price, mine.network.sizes.positions
    once = sizes * price.token + sizes**2 * price.pair
    for row, one in enumerate(heard.split(1)):
        texts, _ = by_hand(mine, one)
        each = [price.macs(torch.tensor(sizes), torch.tensor(len(text))).item() for text in texts]
        assert trace.macs[row] == sum(each) - once * (len(texts) - 1)
    most = price.macs(torch.tensor(sizes), torch.tensor(CAP)).item()
    assert mine.max_macs == 3 * most - 2 * once
    assert mine.ceiling(heard, "passes").unique().item() == 3 * CAP


def test_the_text_that_stands() -> None:
    """The last where it passes; else the likeliest of those that are not too repetitive."""
    texts = torch.full((4, 3, 2), PAD)
    texts[:, :, 0] = torch.tensor([1, 2, 3])
    texts[0, 2] = texts[3, 1:] = PAD
    nothing = -torch.inf
    odds = torch.tensor(
        [[-2.0, -0.1, nothing], [-2.0, -3.0, -4.0], [-2.0, -3.0, -0.1], [-0.1, nothing, nothing]]
    )
    ratios = torch.tensor([[0.0, 0, 0], [9, 0, 0], [9, 8, 7], [0, 0, 0]])
    assert Tried(texts, odds, ratios).standing(Checks())[:, 0].tolist() == [2, 2, 3, 1]


def test_gradients_push_a_text_to_be_refused() -> None:
    """Its likelihood has one, its repetition has none."""
    mine, heard = retrying(checks=Checks(ratio=9.0, likely=-0.5)).double(), recordings(4).double()

    def pushed(sound: Tensor) -> Tensor:
        _, gate = mine.trace(sound).gates
        return gate.margin[:, 0].sum()

    leaf = heard.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pushed(leaf), leaf)
    way = torch.randn(heard.shape, generator=Generator().manual_seed(0)).double()
    with torch.no_grad():
        slope = (pushed(heard + 1e-7 * way) - pushed(heard - 1e-7 * way)) / 2e-7
    assert slope.item() == pytest.approx((gradient * way).sum().item(), rel=1e-4)


def test_draws_are_of_a_seed() -> None:
    mine, heard = retrying(), recordings(12)
    drawn = mine.trace(heard).also["retries"] > 0
    other = mine.seeded(1)
    assert torch.equal(mine(heard), retrying()(heard))
    assert not torch.equal(mine(heard)[drawn], other(heard)[drawn])
    assert torch.equal(mine(heard)[~drawn], other(heard)[~drawn])
    found = mine.searched(0)
    assert isinstance(found, Retrying)
    assert not torch.equal(found(heard)[drawn], mine(heard)[drawn])


def test_attacks_make_it_decode_again() -> None:
    mine, heard = retrying(), recordings(6, seed=2)
    found = attacks.build("Slowdown(steps=4)", mine, parse_threat("linf:0.02"))(heard)
    before, after = mine.trace(heard), mine.trace(found)
    assert after.also["retries"].sum() > before.also["retries"].sum()
    with pytest.raises(NotApplicable, match="shows no logits of its steps"):
        attacks.build("SlothSpeech", mine, parse_threat("linf:0.02"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"temperatures": ()}, "0 temperatures and a cap of 8: give at least one"),
        ({"cap": 1}, "2 temperatures and a cap of 1"),
        ({"temperatures": (0.0,)}, "temperature = 0.0: give a positive number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        retrying(**settings)
