"""Random points of the budget: the worst of many, at the effort of what they are compared with."""

from __future__ import annotations

import math

import pytest
import torch
from prompts import LONGEST, VOCABULARY, Decoder, TokenExits, some_prompts
from torch import Generator, Tensor
from toys import LinearSaver

from effattack import attacks
from effattack.attacks.by_name import usual_controls
from effattack.attacks.controls import AT_ONCE
from effattack.attacks.effort import metered, tokens_through
from effattack.attacks.searches.words import GRADIENT, WIDTH
from effattack.certify.enumeration import enumeration
from effattack.domains import Tokens
from effattack.domains.tokens import lengths, unpadded
from effattack.errors import NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.victim import Victim

PROMPTS = some_prompts(10)


def work(victim: Victim, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        return victim.spent(victim.trace(inputs))


@pytest.mark.parametrize("victim", [TokenExits(), Decoder()])
def test_so_many_random_swaps_hold_the_exact_worst_case(victim: Victim) -> None:
    exact = enumeration(victim, PROMPTS, parse_threat("swap:1").on(victim.domain))
    found = attacks.build("BestOfRandom(draws=2000, threat='swap:1')", victim)(PROMPTS)
    assert torch.equal(work(victim, found), exact.most)


@pytest.mark.parametrize("threat", ["prefix:2", "suffix:3", "swap:1", "swap:2"])
def test_the_worst_of_more_is_worse_and_all_are_in_the_budget(threat: str) -> None:
    victim = Decoder()
    few, many = (
        attacks.build(f"BestOfRandom(draws={draws}, threat='{threat}')", victim)
        for draws in (1, 200)
    )
    assert few.threat.contains(few(PROMPTS), PROMPTS).all()
    assert few.threat.contains(many(PROMPTS), PROMPTS).all()
    assert work(victim, PROMPTS).sum() < work(victim, few(PROMPTS)).sum()
    assert work(victim, few(PROMPTS)).sum() < work(victim, many(PROMPTS)).sum()


def test_images_are_drawn_as_noise_draws_them() -> None:
    victim = LinearSaver()
    images = torch.rand(64, *victim.input_shape, generator=Generator().manual_seed(0))
    images = victim.domain.snap(images)
    images = images[work(victim, images) < victim.max_macs]
    best = attacks.build("BestOfRandom(draws=1)", victim, 0.3, seed=4)(images)
    noise = attacks.build("noise", victim, 0.3, seed=4)(images)
    dearer = work(victim, noise) - work(victim, images)
    assert (dearer > 0).any()
    assert torch.equal(best[dearer > 0], noise[dearer > 0])
    assert torch.equal(best[dearer < 0], images[dearer < 0])


def test_effort_counts_what_is_read_and_written_and_a_gradient_three_times() -> None:
    victim, effort = metered(TokenExits())
    size = int(lengths(PROMPTS).sum())
    work(victim, PROMPTS)
    assert (effort.prompts, effort.tokens) == (len(PROMPTS), size)
    steps = 2
    attack = attacks.Slowdown(victim, threat="swap:2", steps=steps * (GRADIENT + WIDTH) // GRADIENT)
    assert attack.gradients == steps
    before = effort.prompts
    with torch.no_grad():
        full = victim.trace(PROMPTS).macs >= victim.ceiling(PROMPTS)
    attack(PROMPTS[~full])
    most = steps * (GRADIENT + WIDTH) * int((~full).sum())
    assert 0 < effort.prompts - before - len(PROMPTS) - int((~full).sum()) <= most


def test_a_written_token_is_read_again_but_for_the_last() -> None:
    victim, effort = metered(Decoder())
    with torch.no_grad():
        trace = victim.trace(PROMPTS)
    read = int(lengths(PROMPTS).sum())
    assert effort.tokens == read, "this victim tells no output tokens"
    told = trace._replace(also={"output_tokens": trace.also["passes"]})
    assert tokens_through(PROMPTS, told).sum() == read + trace.also["passes"].sum() - len(PROMPTS)


def test_tokens_are_a_budget_of_all_that_are_attacked_together() -> None:
    victim, effort = metered(Decoder())
    longest = int(lengths(PROMPTS).max())
    attacks.BestOfRandom(victim, threat="swap:1", draws=10**6, tokens=500.0)(PROMPTS)
    spent = effort.tokens - int(lengths(PROMPTS).sum())  # the clean ones come first
    assert 500 * len(PROMPTS) <= spent <= 500 * len(PROMPTS) + AT_ONCE * longest


def test_nothing_is_drawn_for_what_is_at_its_ceiling() -> None:
    victim, effort = metered(TokenExits(sure=2.0))  # never sure: every prompt costs all there is
    found = attacks.BestOfRandom(victim, threat="swap:1", draws=5)(PROMPTS)
    assert effort.prompts == len(PROMPTS)
    assert torch.equal(found, PROMPTS)


def test_what_is_no_effort_is_refused() -> None:
    for wrong in ("draws=0", "tokens=0", f"tokens={-math.pi}"):
        with pytest.raises(UsageError, match="at least one of each"):
            attacks.build(f"BestOfRandom({wrong})", TokenExits())
    with pytest.raises(UsageError, match="images have none; give draws alone"):
        attacks.build("BestOfRandom(tokens=5)", LinearSaver())
    with pytest.raises(NotApplicable, match="count gradients and queries"):
        metered(LinearSaver())


def changed(name: str, threat: str, clean: list[list[int]], victim: Victim) -> list[list[int]]:
    """What a control makes of prompts, without padding."""
    prompts = victim.domain.join([torch.tensor([row]) for row in clean])
    found = attacks.build(f"{name}(threat='{threat}')", victim)(prompts)
    return [row.tolist() for row in unpadded(found)]


def test_plain_texts_stand_where_the_budget_lets_them() -> None:
    victim, clean = TokenExits(), [[1, 2, 3], [4, 5], [6, 7, 8, 9, 10, 11, 12]]

    assert changed("benign", "suffix:3", clean, victim) == [
        [1, 2, 3, 4, 5, 4],
        [4, 5, 6, 7, 8],
        [*clean[2], 1],
    ]
    assert changed("benign", "prefix:2", clean, victim)[:2] == [[4, 5, 1, 2, 3], [6, 7, 4, 5]]
    assert changed("repetition", "suffix:3", clean, victim) == [
        [1, 2, 3, 3, 3, 3],
        [4, 5, 5, 5, 5],
        [*clean[2], 12],
    ]
    assert changed("benign", "swap:3", clean, victim)[:2] == [[4, 5, 4], [6, 7]]
    assert changed("repetition", "swap:5", clean, victim)[:2] == [[3, 3, 3], [5, 5]]


@pytest.mark.parametrize("name", ["benign", "long_list", "noise", "repetition"])
def test_controls_of_one_budget_are_of_equal_length(name: str) -> None:
    victim = Asked()
    found = attacks.build(f"{name}(threat='suffix:2')", victim)(PROMPTS)
    assert torch.equal(lengths(found), lengths(PROMPTS) + 2)
    assert [a.label for a in usual_controls(victim, parse_threat("suffix:2"), 0)] == [
        *("noise", "benign", "repetition", "long_list")
    ]


def test_a_long_list_is_asked_for_in_the_words_of_the_victim() -> None:
    victim = Asked()
    assert changed("long_list", "suffix:4", [[1, 2, 3]], victim) == [[1, 2, 3, 7, 8, 9, 7]]
    victim.long_request = ""
    with pytest.raises(NotApplicable, match="names no request for long work"):
        attacks.build("long_list", victim)
    with pytest.raises(NotApplicable, match="has no tokenizer"):
        attacks.build("long_list", TokenExits())


class Numbers:
    """A token per blank-separated number."""

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


class Asked(TokenExits):
    """The same, of a user who writes numbers."""

    long_request = "7 8 9"

    def __init__(self) -> None:
        super().__init__()
        self.domain = Tokens(VOCABULARY, LONGEST, Numbers())
