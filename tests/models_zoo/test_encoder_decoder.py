"""Encoder-decoders: what they write, what it costs, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator as Draw
from torch import Tensor
from torch.nn.functional import pad

from effattack import evaluate
from effattack.counting.macs import MacsCounter, count_macs
from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import Layer, Sizes
from effattack.models_zoo.generation.encoder_decoder import EncoderDecoder
from effattack.models_zoo.generation.price import Price, SourcePrice
from effattack.models_zoo.generation.translator import Between, Translator
from effattack.models_zoo.generation.writer import Template
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS, Check

ASKED, WRITTEN, LONGEST, CAP, END, START = 13, 9, 8, 6, 0, 1
READER = Sizes(ASKED, 16, 2, 4, 4, 20, LONGEST + 2)
KINDS = {
    "grouped queries, tied": (READER, Sizes(WRITTEN, 12, 2, 3, 1, 10, CAP)),
    "plain": (READER, Sizes(WRITTEN, 16, 1, 2, 2, 20, CAP, tied=False)),
    "one layer reads, three write": (
        READER._replace(layers=1, kv_heads=2),
        Sizes(WRITTEN, 8, 3, 2, 1, 12, CAP + 3),
    ),
}

every_network = pytest.mark.parametrize("kind", KINDS)
every_deployment = pytest.mark.parametrize(
    ("kind", "cached"),
    [
        ("grouped queries, tied", True),
        pytest.param("plain", True, marks=pytest.mark.slow),
        pytest.param("one layer reads, three write", True, marks=pytest.mark.slow),
        pytest.param("grouped queries, tied", False, marks=pytest.mark.slow),
    ],
)


def network(kind: str = "grouped queries, tied", seed: int = 2) -> Translator:
    """With weights that make texts of many lengths."""
    made, draw = Translator(*KINDS[kind]), Draw().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 2)
        head = made.decoder.head or made.decoder.words
        head.weight[END] *= 2
    return made.eval()


def translator(kind: str = "grouped queries, tied", **settings: Any) -> EncoderDecoder:
    given = {"cap": CAP, "end": END, "template": Template((3,), (5,)), "start": START, **settings}
    return EncoderDecoder(network(kind), Tokens(ASKED, LONGEST), **given)


def prompts(count: int, seed: int = 0) -> Tensor:
    draw = Draw().manual_seed(seed)
    ids = torch.randint(1, ASKED, (count, LONGEST), generator=draw)
    sizes = torch.randint(1, LONGEST + 1, (count, 1), generator=draw)
    return ids.masked_fill(torch.arange(LONGEST) >= sizes, PAD)


def normed(row: Tensor, norm: Any) -> Tensor:
    return row / (row.square().mean() + norm.eps).sqrt() * norm.weight


def spun(head: Tensor, place: int, theta: float = 10_000.0) -> Tensor:
    """Pairs of a head as complex numbers, turned by their angles."""
    half = len(head) // 2
    angles = place * theta ** (-torch.arange(half).double() / half)
    low, high = head[:half].double(), head[half:].double()
    found = torch.complex(low, high) * torch.polar(torch.ones(half).double(), angles)
    return torch.cat([found.real, found.imag]).to(head)


def mixture(part: Layer | Between, query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Any:
    """One token looks at others, head by head: (width,); queries in a row share keys."""
    found = []
    size, sharing = keys[0].shape[1], query.shape[0] // keys[0].shape[0]
    for head, wanted in enumerate(query):
        own = head // sharing
        scores = torch.stack([wanted @ key[own] for key in keys]) / math.sqrt(size)
        found.append(sum(s * v[own] for s, v in zip(scores.softmax(0), values, strict=True)))
    return part.out(torch.cat(found))


def through(layer: Layer, row: Tensor) -> Tensor:
    seen = normed(row, layer.between)
    gate = layer.gate(seen)
    return row + layer.down(gate * torch.sigmoid(gate) * layer.up(seen))


def encoded(made: Translator, ids: list[int]) -> list[Tensor]:
    """The states of a prompt, token by token."""
    rows = [made.encoder.words.weight[i] for i in ids]
    for layer in made.encoder.layers:
        size = layer.sizes.head
        seen = [normed(row, layer.before) for row in rows]
        queries, keys = (
            [
                torch.stack([spun(h, place) for h in part(row).view(-1, size)])
                for place, row in enumerate(seen)
            ]
            for part in (layer.queries, layer.keys)
        )
        values = [layer.values(row).view(-1, size) for row in seen]
        rows = [
            through(layer, row + mixture(layer, query, keys, values))
            for row, query in zip(rows, queries, strict=True)
        ]
    return [normed(row, made.encoder.norm) for row in rows]


def logits_by_hand(made: Translator, states: list[Tensor], ids: list[int]) -> Tensor:
    """Of the token after the last, everything computed one token and one head at a time."""
    rows = [made.decoder.words.weight[i] for i in ids]
    for layer, between in zip(made.decoder.layers, made.between, strict=True):
        size = layer.sizes.head
        seen = [normed(row, layer.before) for row in rows]
        queries, keys = (
            [
                torch.stack([spun(h, place) for h in part(row).view(-1, size)])
                for place, row in enumerate(seen)
            ]
            for part in (layer.queries, layer.keys)
        )
        values = [layer.values(row).view(-1, size) for row in seen]
        rows = [
            row + mixture(layer, query, keys[: place + 1], values[: place + 1])
            for place, (row, query) in enumerate(zip(rows, queries, strict=True))
        ]
        of_source = [
            [part(s).view(-1, size) for s in states] for part in (between.keys, between.values)
        ]
        rows = [
            row
            + mixture(
                between, between.queries(normed(row, between.before)).view(-1, size), *of_source
            )
            for row in rows
        ]
        rows = [through(layer, row) for row in rows]
    head = made.decoder.head or made.decoder.words
    return head.weight @ normed(rows[-1], made.decoder.norm)


def by_hand(victim: EncoderDecoder, prompt: Tensor) -> list[int]:
    ids = [*victim.template.before, *prompt[prompt != PAD].tolist(), *victim.template.after]
    states, written = encoded(victim.network, ids), []
    while len(written) < CAP and END not in written:
        logits = logits_by_hand(victim.network, states, [victim.start, *written])
        written.append(int(logits.argmax()))
    return written


@every_deployment
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check, kind: str, cached: bool) -> None:
    check(translator(kind, cached=cached), prompts(6))


@every_deployment
def test_declared_work_is_executed_work(kind: str, cached: bool) -> None:
    victim, asked = translator(kind, cached=cached), prompts(12, seed=1)
    found, trace = audit(victim, asked), victim.trace(asked)
    assert torch.equal(found.macs, trace.macs)
    assert len(found.counts["passes"].unique()) > 2, "texts of many lengths cost much and little"
    for name in ("passes", "output_tokens", "cache_bytes"):
        assert torch.equal(found.counts[name], trace.also[name])
    assert (found.macs <= victim.ceiling(asked)).all()


@every_deployment
@torch.no_grad()
def test_texts_are_those_of_an_implementation_token_by_token(kind: str, cached: bool) -> None:
    victim, asked = translator(kind, cached=cached), prompts(8, seed=2)
    for row, prompt in zip(victim(asked), asked, strict=True):
        assert row[row != PAD].tolist() == by_hand(victim, prompt)


@every_network
def test_texts_with_and_without_a_cache_are_the_same(kind: str) -> None:
    asked = prompts(16, seed=3)
    kept, anew = translator(kind), translator(kind, cached=False)
    assert torch.equal(kept(asked), anew(asked))
    trace = anew.trace(asked)
    many = trace.also["passes"] > 1
    assert (trace.macs[many] > kept.trace(asked).macs[many]).all()
    assert torch.equal(trace.macs[~many], kept.trace(asked).macs[~many])
    assert not trace.also["cache_bytes"].any()


@settings(max_examples=25, deadline=None)
@given(source=st.integers(1, 40), passes=st.integers(1, 40), cached=st.booleans())
def test_the_closed_form_is_the_sum_over_passes(source: int, passes: int, cached: bool) -> None:
    own = Price(token=97, pair=13, draw=41, cached=8, weights=138)
    price = SourcePrice(token=71, pair=5, kept=19, look=3, cached=6, decoder=own)
    macs, moved = source * 71 + source**2 * 5, 71
    for step in range(passes):
        read = 1 if cached else step + 1
        made = not (cached and step)
        macs += made * source * 19 + read * (97 + (step + 1) * 13 + source * 3) + 41
        moved += made * 19 + 138 + cached * ((step + 1) * 8 + source * 6)
    sizes = torch.tensor(source), torch.tensor(passes)
    assert price.macs(*sizes, cached).item() == macs
    assert price.held(*sizes).item() == source * 6 + passes * 8
    assert price.moved(*sizes, cached).item() == moved


def test_the_price_of_both_sides_is_counted() -> None:
    made = network()
    with MacsCounter() as counter:
        memory = made.encode(made.lift_source(torch.ones(1, 5, dtype=torch.long)))
        reading = counter.total
        state, _ = made.read(made.lift(torch.ones(1, 3, dtype=torch.long)), memory)
        made.draw(state[:, -1])
    assert reading == 2 * (5 * (4 * 16 * 16 + 3 * 16 * 20) + 25 * 2 * 16)
    own = 12 * (12 + 4 + 4) + 12 * 12 + 3 * 12 * 10 + 2 * 12 * 12
    between = 5 * 2 * 16 * 4 + 3 * 5 * 2 * 12
    assert counter.total - reading == 2 * (3 * own + 9 * 2 * 12 + between) + 12 * WRITTEN
    weights = sum(p.numel() for p in made.parameters() if p.dim() == 2)
    every = made.price.token + made.price.kept + made.price.decoder.weights
    assert every == weights - made.encoder.words.weight.numel()


def test_steps_are_one_gate() -> None:
    victim, asked = translator(), prompts(16, seed=3)
    trace, written = victim.trace(asked), victim(asked)
    (gate,) = trace.gates
    assert (gate.name, gate.margin.shape) == ("steps", (16, CAP - 1))
    assert torch.equal(gate.reached.sum(1), lengths(written).clamp_max(CAP - 1))
    ended = (written == END).any(1)
    assert ended.any()
    assert not ended.all()
    assert torch.equal(trace.aux["capped"], ~ended)
    passes = torch.arange(1, CAP)
    spent = victim.network.price.macs(lengths(asked)[:, None] + 2, passes)
    assert torch.equal(gate.cost, victim.ceiling(asked)[:, None] - spent)


def test_padding_costs_nothing_and_changes_no_answer() -> None:
    victim, asked = translator(), prompts(8)
    wide = pad(asked, (0, 3), value=PAD)
    assert torch.equal(victim(wide), victim(asked))
    assert torch.equal(victim.trace(wide).macs, victim.trace(asked).macs)
    alone = sum(count_macs(victim, single) for single in victim.domain.singles(asked))
    assert count_macs(victim, asked) == alone


def test_a_leaf_is_read_in_place_of_the_ids() -> None:
    """Its rows are those of the encoder's embedding, at the end of short prompts not looked at."""
    victim, asked = translator(), prompts(12, seed=4)
    other = asked.clone()
    other[:, 0] = 7
    leaf = victim.lift(other, torch.tensor([[0, LONGEST]] * 12))
    assert torch.equal(leaf.rows[:, 0], victim.network.encoder.words.weight[7].expand(12, -1))
    assert torch.equal(victim.trace(asked, leaf).logits, victim(other))
    assert not torch.equal(victim(other), victim(asked))


@every_network
def test_what_decoding_saw_is_what_reading_again_says(kind: str) -> None:
    victim, asked = translator(kind), prompts(12, seed=6)
    leaf = victim.lift(asked, torch.zeros(12, 1, dtype=torch.long))
    (seen,), (again,) = victim.trace(asked).gates, victim.trace(asked, leaf).gates
    assert torch.equal(seen.reached, again.reached)
    assert torch.allclose(seen.margin[seen.reached], again.margin[again.reached], atol=1e-5)
    assert seen.margin[seen.reached].unique().numel() > 10


def test_gradients_are_those_of_finite_differences() -> None:
    victim, asked = translator().double(), prompts(8, seed=5)
    leaf = victim.lift(asked, torch.tensor([[0]] * 8))
    rows = leaf.rows.detach().requires_grad_()

    def pushed(values: Tensor) -> Tensor:
        (gate,) = victim.trace(asked, leaf._replace(rows=values)).gates
        return gate.margin.masked_fill(~gate.reached, 0).sum()

    (gradient,) = torch.autograd.grad(pushed(rows), rows)
    step = torch.zeros_like(rows)
    step[2, 0, 3] = 1e-6
    with torch.no_grad():
        slope = (pushed(rows + step) - pushed(rows - step)) / 2e-6
    assert slope.item() == pytest.approx(gradient[2, 0, 3].item(), rel=1e-4)
    assert slope.abs() > 1e-6


def test_a_model_that_never_ends_is_stopped_by_the_cap() -> None:
    """Its end token is as likely as not, and another is always likelier."""
    victim, asked = translator(), prompts(6)
    with torch.no_grad():
        victim.network.decoder.words.weight[END] = 0
        victim.network.decoder.words.weight[2] = -victim.network.decoder.words.weight[3]
    trace = victim.trace(asked)
    assert trace.aux["capped"].all()
    assert trace.also["passes"].tolist() == [CAP] * 6
    assert torch.equal(trace.macs, victim.ceiling(asked))


def test_sampled_texts_are_fixed_by_seed_and_prompt() -> None:
    victim, asked = translator(temperature=2.0), prompts(8)
    alone = [victim(single) for single in victim.domain.singles(asked)]
    assert torch.equal(victim.task.join(alone), victim(asked))
    assert not torch.equal(victim.seeded(1)(asked), victim(asked))
    assert torch.equal(audit(victim, asked[:3]).macs, victim.trace(asked[:3]).macs)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cap": 0}, "EncoderDecoder: cap = 0: give a whole number of at least 1"),
        ({"cap": CAP + 1}, "a cap of 7, the decoder has a context of 6: lower cap"),
        ({"end": WRITTEN}, "the end token 9 is none of the 9 ids of the network"),
        ({"start": WRITTEN}, "the start token 9 is none of the 9 ids of the decoder"),
        (
            {"template": Template((3, 4), (5,))},
            "prompts of 8 tokens and a template of 3, the encoder takes 10: lower longest",
        ),
        ({"temperature": 0.0}, "temperature = 0.0: give a positive number"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        translator(**settings)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="tokenizer has 9 ids, the encoder 13"):
        EncoderDecoder(network(), Tokens(WRITTEN, LONGEST), cap=CAP, end=END)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (torch.ones(1, LONGEST + 1, dtype=torch.long), "has more than 8 tokens: shorten it"),
        (torch.full((1, 3), PAD), "prompt 0 is empty: drop it"),
        (torch.full((1, 3), ASKED), r"has ids outside \[0, 13\)"),
    ],
)
def test_prompts_that_it_cannot_take_are_refused(ids: Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        evaluate(translator(), ids, ids, ["noise"])


def test_the_decoder_begins_with_the_end_token_unless_told_otherwise() -> None:
    assert translator(start=None).start == END
