"""Sampled generators: chance is fixed by seed and prompt, and follows the softmax."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from test_generators import CAP, END, VOCABULARY, generator, prompts
from torch import Tensor

from effattack import attacks
from effattack.attacks.objectives import Goal, MarginHinge
from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.choice import Greedy
from effattack.models_zoo.generation.draws import DRAWS
from effattack.models_zoo.generation.sampling import Sampled, Sampling
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check


@pytest.mark.slow
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check) -> None:
    check(generator(temperature=1.5), prompts(6))


def test_declared_work_is_executed_work_for_every_seed() -> None:
    victim, asked = generator(temperature=1.5), prompts(4)
    passes = set()
    for seed in range(3):
        seeded = victim.seeded(seed)
        found, trace = audit(seeded, asked), seeded.trace(asked)
        assert torch.equal(found.macs, trace.macs)
        passes.add(tuple(trace.also["passes"].tolist()))
    assert len(passes) > 1, "other chance, other texts"


def test_chance_depends_on_seed_and_prompt_alone() -> None:
    victim, asked = generator(temperature=2.0), prompts(8)
    together = victim(asked)
    alone = [victim(single) for single in victim.domain.singles(asked)]
    assert torch.equal(victim.task.join(alone), together)
    assert torch.equal(victim(asked.flip(0)).flip(0), together)
    assert not torch.equal(victim.seeded(1)(asked), together)
    assert torch.equal(victim.seeded(1).seeded(0)(asked), together)


def test_a_search_has_chance_of_its_own() -> None:
    victim, asked = generator(temperature=2.0), prompts(8)
    assert not torch.equal(victim.searched(0)(asked), victim(asked))
    greedy = generator()
    assert greedy.searched(0) is greedy


def test_a_search_sees_means_over_draws_of_its_own() -> None:
    victim, asked = generator(temperature=2.0), prompts(8)
    seen = victim.searched(3)
    draws = [victim.seeded(f"search 3 {k}") for k in range(DRAWS)]
    traces, found = [draw.trace(asked) for draw in draws], seen.trace(asked)
    assert torch.equal(found.macs, torch.stack([t.macs for t in traces]).mean(0))
    passes = torch.stack([t.also["passes"] for t in traces])
    assert torch.equal(seen.spent(found), passes.mean(0))
    assert (passes.std(0) > 0).any(), "draws differ"
    assert torch.equal(seen.ceiling(asked, "passes"), victim.ceiling(asked, "passes"))
    goal: Goal = SimpleNamespace(victim=victim)  # type: ignore[assignment]
    each = torch.stack([MarginHinge()(t, goal) for t in traces])
    assert torch.allclose(MarginHinge()(found, goal), each.mean(0).float(), rtol=1e-4)


SHORT = ("LoopLLM(steps=5", "QueryAttack(queries=3", "Slowdown(steps=5")


@pytest.mark.parametrize("name", SHORT)
def test_no_attack_looks_at_the_draw_that_is_scored(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, asked, seen = generator(temperature=1.0, seed="deployed"), prompts(4, longest=4), []
    drawn = Sampled.draws

    def watched(choice: Sampled, batch: Tensor, steps: int) -> Tensor:
        seen.append(choice.seed)
        return drawn(choice, batch, steps)

    attack = attacks.build(f"{name}, threat='suffix:2')", victim, seed=7)
    monkeypatch.setattr(Sampled, "draws", watched)
    found = attack(asked)
    assert set(seen) == {f"search 7 {k}" for k in range(DRAWS)}
    assert attack.threat.contains(found, asked).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Slowdown", "AutoSlow"])
def test_what_a_search_finds_holds_on_draws_that_nobody_saw(name: str) -> None:
    victim, asked = generator(temperature=0.7), prompts(8, longest=5)
    made = [attacks.build(f"{each}(threat='suffix:2')", victim) for each in ("noise", name)]
    means = []
    for batch in (asked, *(attack(asked) for attack in made)):
        fresh = [victim.seeded(seed) for seed in range(100, 130)]
        means.append(torch.stack([each.spent(each.trace(batch)) for each in fresh]).mean().item())
    clean, random, attacked = means
    assert attacked > max(clean, random) + 0.1 * (CAP - max(clean, random))


@pytest.mark.parametrize("end", [0, 2, 4])
def test_words_are_drawn_as_often_as_the_softmax_says(end: int) -> None:
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0, -0.4])
    choice = Sampled(end, Tokens(5, 3), temperature=0.7)
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    words = choice.choose(logits.expand(10_000, -1), draws)
    shares = words.bincount(minlength=5) / 10_000
    assert torch.allclose(shares, (logits / 0.7).softmax(0), atol=2e-4)


@pytest.mark.parametrize("end", [0, 2, 4])
def test_the_margin_tells_whether_it_is_written_on(end: int) -> None:
    logits = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for choice in (Greedy(end), Sampled(end, Tokens(5, 3))):
        words, margin = choice.choose(logits, draws), choice.margin(logits, draws)
        assert torch.equal(words != end, margin > 0)
        assert (margin.abs() <= 1).all()
        assert (choice.slack(logits, draws) >= 0).all()
    below = draws < 1 - logits.softmax(1)[:, end]
    assert torch.equal(Sampled(end, Tokens(5, 3)).margin(logits, draws) > 0, below)


def test_a_cold_sampler_is_greedy() -> None:
    asked = prompts(10)
    cold, greedy = generator(temperature=1e-4), generator()
    assert torch.equal(cold(asked), greedy(asked))


def test_a_temperature_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="temperature = 0: give a positive number, or leave it"):
        generator(temperature=0)


def test_texts_have_the_form_of_all_texts() -> None:
    written = generator(temperature=3.0)(prompts(12))
    assert ((written >= PAD) & (written < VOCABULARY)).all()
    sizes = lengths(written)
    assert ((written == END).sum(1) <= 1).all()
    assert (sizes >= 1).all()


HEADS = [{"top_k": 1}, {"top_k": 3}, {"top_p": 0.5}, {"top_p": 0.8, "top_k": 4}, {"top_p": 1.0}]
"""Settings of the head of a softmax, of five tokens."""
ENDS = [0, 4, (1, 3), (4, 0)]


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_the_head_of_a_softmax_is_that_of_transformers(head: dict[str, float]) -> None:
    warpers = pytest.importorskip("transformers").generation.logits_process
    logits = torch.randn(300, 5, generator=torch.Generator().manual_seed(2)) * 2
    logits[:40, 1] = logits[:40, 3]  # of equally likely tokens, both stay or both go
    sampling = Sampling(0.7, **head)
    expected = logits / 0.7
    if "top_k" in head:
        expected = warpers.TopKLogitsWarper(head["top_k"])(None, expected)
    if "top_p" in head:
        expected = warpers.TopPLogitsWarper(head["top_p"])(None, expected)
    apart = sampling.edge(logits) > 1e-6
    shares = sampling.of(logits).softmax(1)
    assert apart.sum() > 200
    assert torch.allclose(shares[apart], expected.softmax(1)[apart], atol=1e-6)


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("end", ENDS, ids=str)
def test_words_are_drawn_as_often_as_the_head_says(
    head: dict[str, float], end: int | tuple[int, ...]
) -> None:
    logits = torch.tensor([0.3, -1.0, 1.2, 0.0, -0.4])
    choice = Sampled(end, Tokens(5, 3), temperature=0.7, **head)
    draws = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    words = choice.choose(logits.expand(10_000, -1), draws)
    shares = words.bincount(minlength=5) / 10_000
    assert torch.allclose(shares, choice.sampling.of(logits).softmax(0), atol=2e-4)
    ended = choice.is_end(words)
    assert torch.equal(ended, ended.sort().values), "end tokens come last"


@pytest.mark.parametrize("head", HEADS, ids=str)
@pytest.mark.parametrize("end", ENDS, ids=str)
def test_the_margin_tells_it_of_the_head_as_well(
    head: dict[str, float], end: int | tuple[int, ...]
) -> None:
    logits = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws = torch.rand(400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    choice = Sampled(end, Tokens(5, 3), **head)
    words, margin = choice.choose(logits, draws), choice.margin(logits, draws)
    shares = choice.sampling.of(logits).softmax(1)
    ended = shares[:, list(choice.ends)].sum(1)
    assert torch.equal(margin > 0, draws < 1 - ended)
    assert torch.equal(choice.is_end(words), margin <= 0)
    assert (shares.gather(1, words[:, None]) > 0).all(), "what is cut off is never written"
    if head.get("top_k", 5) < 4:
        assert (ended == 0).any(), "it may be cut off, and then nothing ends the text"
        assert (margin[ended == 0] == 1).all()


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_gradients_are_finite_where_all_end_tokens_are_cut_off(head: dict[str, float]) -> None:
    logits = torch.tensor([[9.0, 8.0, 7.0, -9.0, -9.0], [-9.0, -8.0, 0.0, 9.0, 9.0]])
    logits.requires_grad_()
    choice = Sampled((3, 4), Tokens(5, 3), **head)
    choice.margin(logits, torch.tensor([0.5, 0.5], dtype=torch.float64)).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds_of_the_head_and_of_several_ends(check: Check) -> None:
    victim = generator(temperature=1.5, top_k=6, top_p=0.9, end=(END, END + 1))
    check(victim, prompts(6))


def test_greedy_texts_end_with_any_of_several_tokens() -> None:
    victim, asked = generator(end=(END, 5)), prompts(12)
    one, texts = generator(), victim(asked)
    ended = victim.choice.is_end(texts)
    assert (ended.sum(1) <= 1).all()
    assert (texts == 5).any(), "the second one ends some"
    for text, before in zip(texts, one(asked), strict=True):
        size = int(lengths(text[None]))
        assert torch.equal(text[:size], before[:size]), "the same words until the first end"
        assert size == victim.cap or victim.choice.is_end(text[size - 1])
    answers = victim.task.answer(texts)
    assert not victim.choice.is_end(answers).any()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": 1.0, "top_k": 0}, "top_k = 0: give a whole number of at least 1"),
        ({"temperature": 1.0, "top_k": 2.5}, "top_k = 2.5: give a whole number"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p = 0.0: give a share above 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p = 1.5: give a share above 0"),
        ({"top_k": 3}, "top_k and top_p are of sampled texts: give a temperature"),
        ({"end": ()}, "there is no end token"),
        ({"end": (0, 99)}, "the end token 99 is none of"),
        ({"end": tuple(range(VOCABULARY))}, "tokens end a text: leave one to write with"),
    ],
    ids=str,
)
def test_heads_and_ends_that_are_none_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        generator(**settings)
