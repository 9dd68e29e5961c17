"""Generators: what they write, what it costs, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator as Draw
from torch import Tensor
from torch.nn.functional import pad

from effattack.counting.macs import MacsCounter, count_macs
from effattack.domains.tokens import PAD, Tokens, lengths
from effattack.errors import UsageError
from effattack.models_zoo.generation.decoder import Decoder, Sizes
from effattack.models_zoo.generation.generator import Generator, Template
from effattack.models_zoo.generation.price import Price
from effattack.victim import Victim, audit
from effattack.victim.checks import INVARIANTS, Check
from effattack.victim.writing import STATES, STEPS, Writes, steps_of

VOCABULARY, LONGEST, CAP, END = 11, 7, 6, 0
SIZES = {
    "plain": Sizes(VOCABULARY, 16, 2, 4, 4, 20, 32, tied=False),
    "tied": Sizes(VOCABULARY, 16, 2, 4, 4, 20, 32),
    "grouped queries, tied": Sizes(VOCABULARY, 16, 2, 4, 2, 20, 32),
}

every_network = pytest.mark.parametrize("kind", SIZES)
every_deployment = pytest.mark.parametrize(
    ("kind", "cached"),
    [
        ("grouped queries, tied", True),
        pytest.param("plain", True, marks=pytest.mark.slow),
        pytest.param("tied", False, marks=pytest.mark.slow),
    ],
)


def network(kind: str = "tied", seed: int = 2) -> Decoder:
    """With weights that make texts of many lengths."""
    made, draw = Decoder(SIZES[kind]), Draw().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / 2)
        head = made.words if made.head is None else made.head
        head.weight[END] *= 2
    return made.eval()


def generator(kind: str = "tied", **settings: Any) -> Generator:
    given = {"cap": CAP, "end": END, "template": Template((3, 4), (5,)), **settings}
    return Generator(network(kind), Tokens(VOCABULARY, LONGEST), **given)


def prompts(count: int, seed: int = 0, longest: int = LONGEST) -> Tensor:
    draw = Draw().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (count, longest), generator=draw)
    sizes = torch.randint(1, longest + 1, (count, 1), generator=draw)
    return ids.masked_fill(torch.arange(longest) >= sizes, PAD)


def by_hand(victim: Generator, prompt: Tensor) -> list[int]:
    """Greedily, reading everything again at every step."""
    ids = [*victim.template.before, *prompt[prompt != PAD].tolist(), *victim.template.after]
    written: list[int] = []
    while len(written) < CAP and END not in written:
        state, _ = victim.network.read(victim.network.lift(torch.tensor([ids + written])))
        written.append(int(victim.network.draw(state[0, -1]).argmax()))
    return written


@every_deployment
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(check: Check, kind: str, cached: bool) -> None:
    check(generator(kind, cached=cached), prompts(6))


@every_deployment
def test_declared_work_is_executed_work(kind: str, cached: bool) -> None:
    victim, asked = generator(kind, cached=cached), prompts(8, seed=1)
    found, trace = audit(victim, asked), victim.trace(asked)
    assert torch.equal(found.macs, trace.macs)
    assert len(found.counts["passes"].unique()) > 2, "texts of many lengths cost much and little"
    for name in ("passes", "output_tokens", "cache_bytes"):
        assert torch.equal(found.counts[name], trace.also[name])
    assert (found.macs <= victim.ceiling(asked)).all()


@every_deployment
def test_what_is_written_is_what_reading_everything_again_writes(kind: str, cached: bool) -> None:
    victim, asked = generator(kind, cached=cached), prompts(12, seed=2)
    for row, prompt in zip(victim(asked), asked, strict=True):
        assert row[row != PAD].tolist() == by_hand(victim, prompt)


@settings(max_examples=25, deadline=None)
@given(prompt=st.integers(1, 40), passes=st.integers(1, 40), cached=st.booleans())
def test_the_closed_form_is_the_sum_over_passes(prompt: int, passes: int, cached: bool) -> None:
    price = Price(token=97, pair=13, draw=41, cached=8, weights=138)
    macs, kept, moved = 0, 0, 0
    for step in range(passes):
        read = 1 if cached and step else prompt + step
        macs += read * 97 + read * (prompt + step) * 13 + 41
        kept = 8 * (prompt + step)
        moved += 138 + kept * cached
    sizes = torch.tensor(prompt), torch.tensor(passes)
    assert price.macs(*sizes, cached).item() == macs
    assert price.held(*sizes).item() == kept
    assert price.moved(*sizes, cached).item() == moved


@every_network
def test_reading_in_pieces_is_reading_at_once(kind: str) -> None:
    made = network(kind)
    rows = made.lift(prompts(3)[:, :6].clamp_min(1))
    whole, memory = made.read(rows)
    for cut in range(1, 6):
        first, kept = made.read(rows[:, :cut])
        second, kept = made.read(rows[:, cut:], kept)
        assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-5)
        assert made.stored(kept) == made.stored(memory)


def test_the_price_of_a_layer_is_counted() -> None:
    sizes = SIZES["grouped queries, tied"]
    with MacsCounter() as counter:
        made = network("grouped queries, tied")
        state, _ = made.read(made.lift(torch.ones(1, 5, dtype=torch.long)))
        made.draw(state[:, -1])
    layer = 16 * (16 + 8 + 8) + 16 * 16 + 3 * 16 * 20
    assert counter.total == 2 * (5 * layer + 25 * 2 * 16) + 16 * VOCABULARY
    assert sizes.price == Price(2 * layer, 64, 176, 2 * 2 * 8, 2 * layer + 176)


def test_steps_are_one_gate() -> None:
    victim, asked = generator(), prompts(12, seed=3)
    trace, written = victim.trace(asked), victim(asked)
    (gate,) = trace.gates
    assert (gate.name, gate.margin.shape) == ("steps", (12, CAP - 1))
    sizes = lengths(written)
    assert torch.equal(gate.reached.sum(1), sizes.clamp_max(CAP - 1))
    ended = (written == END).any(1)
    assert ended.any()
    assert not ended.all()
    assert torch.equal(trace.aux["capped"], ~ended)
    to_go = victim.ceiling(asked)[:, None] - torch.stack(
        [
            victim.network.price.macs(lengths(asked) + 3, torch.full((12,), passes))
            for passes in range(1, CAP)
        ],
        1,
    )
    assert torch.equal(gate.cost, to_go)


def test_padding_costs_nothing_and_changes_no_answer() -> None:
    victim, asked = generator(), prompts(8)
    wide = pad(asked, (0, 3), value=PAD)
    assert torch.equal(victim(wide), victim(asked))
    assert torch.equal(victim.trace(wide).macs, victim.trace(asked).macs)
    alone = sum(count_macs(victim, single) for single in victim.domain.singles(asked))
    assert count_macs(victim, asked) == alone


def test_a_leaf_is_read_in_place_of_the_ids() -> None:
    victim, asked = generator(), prompts(5, seed=4)
    places = torch.tensor([[0, 6], [0, 6], [0, 6], [0, 6], [0, 6]])
    other = asked.clone()
    other[:, 0] = 7
    leaf = victim.lift(other, places)
    assert torch.equal(victim.trace(asked, leaf).logits, victim(other))
    assert torch.equal(victim.trace(asked, leaf).macs, victim.trace(other).macs)


@every_deployment
def test_what_decoding_saw_is_what_reading_again_says(kind: str, cached: bool) -> None:
    victim, asked = generator(kind, cached=cached), prompts(12, seed=6)
    (seen,), (again,) = (
        victim.trace(asked, leaf).gates
        for leaf in (None, victim.lift(asked, torch.zeros(12, 1, dtype=torch.long)))
    )
    assert torch.equal(seen.reached, again.reached)
    assert torch.allclose(seen.margin[seen.reached], again.margin[again.reached], atol=1e-5)
    assert seen.margin[seen.reached].unique().numel() > 20


@pytest.mark.parametrize("held", [1, 2**30])
def test_prompts_that_begin_alike_are_written_as_each_alone(
    held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their common beginning is read once, and nothing twice; so few as fit are held at once."""
    monkeypatch.setattr("effattack.models_zoo.generation.writer.HELD", held)
    victim = generator(template=Template((3, 4, 6), (5,)))
    asked = prompts(1, seed=7).clamp_min(1).repeat(9, 1)
    asked[:, -1] = torch.arange(1, 10)
    read, network = [], victim.network.read

    def counted(rows: Tensor, memory: Any = None) -> Any:
        read.append(len(rows) * rows.shape[1])
        return network(rows, memory)

    victim.network.read = counted  # type: ignore[method-assign]
    together = victim.trace(asked)
    passes = int(together.also["passes"].sum())
    prefill = 3 + LONGEST - 1 + 9 * 2 if held > 1 else 9 * (3 + LONGEST + 1)
    assert sum(read) == prefill + passes - 9
    alone = [victim.trace(single) for single in asked.split(1)]
    assert torch.equal(together.logits, torch.cat([trace.logits for trace in alone]))
    assert torch.equal(together.macs, torch.cat([trace.macs for trace in alone]))
    margins = torch.cat([trace.gates[0].margin for trace in alone])
    assert torch.allclose(together.gates[0].margin, margins, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    victim, asked = (
        generator().double(),
        prompts(4, seed=5).masked_fill(torch.arange(LONGEST) >= 3, PAD),
    )
    asked[:, :3] = asked[:, :3].clamp_min(1)
    leaf = victim.lift(asked, torch.tensor([[1]] * 4))
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
    victim, asked = generator(), prompts(6)
    with torch.no_grad():
        victim.network.words.weight[END] = 0
        victim.network.words.weight[2] = -victim.network.words.weight[1]
    trace = victim.trace(asked)
    assert trace.aux["capped"].all()
    assert trace.also["passes"].tolist() == [CAP] * 6
    assert torch.equal(trace.macs, victim.ceiling(asked))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cap": 0}, "cap = 0: give a whole number of at least 1"),
        ({"cap": 30}, "need a context of 39, the network has 32: lower longest or cap"),
        ({"end": 11}, "the end token 11 is none of the 11 ids"),
        ({"end": None}, "there is no end token: give at least one"),
        ({"end": ["<end>"]}, "the end token '<end>' is none of the 11 ids"),
        ({"template": Template((3,), (11,))}, "the template has the token 11, none of the 11 ids"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        generator(**settings)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(UsageError, match="tokenizer has 12 ids, the network 11"):
        Generator(network(), Tokens(12, LONGEST), cap=CAP, end=END)


def test_a_prompt_that_is_too_long_is_refused() -> None:
    victim = generator()
    with pytest.raises(UsageError, match="prompt 0 has more than 7 tokens: shorten it"):
        victim.domain.check(torch.ones(1, 8, dtype=torch.long))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (5, 5)])
def test_heads_that_do_not_divide_are_refused(heads: int, kv_heads: int) -> None:
    with pytest.raises(UsageError, match="heads a multiple of kv_heads"):
        Decoder(Sizes(VOCABULARY, 16, 1, heads, kv_heads, 20, 32))


def test_victims_of_a_twin_in_doubles_exist() -> None:
    twin = generator().in_float64()
    assert isinstance(twin, Victim)
    assert twin.trace(prompts(2)).also["cache_bytes"].tolist() == [
        2 * value for value in generator().trace(prompts(2)).also["cache_bytes"].tolist()
    ]


def test_a_trace_shows_what_every_token_was_drawn_from() -> None:
    victim, asked = generator(), prompts(8)
    places = torch.zeros(len(asked), 1, dtype=torch.long)
    trace = victim.trace(asked, leaf=victim.lift(asked, places))
    again = steps_of(victim.trace(asked), victim)
    for row, written in enumerate(trace.logits):
        prompt = asked[row][asked[row] != PAD].tolist()
        ids = [*victim.template.before, *prompt, *victim.template.after]
        for step, word in enumerate(written[written != PAD].tolist()):
            state, _ = victim.network.read(victim.network.lift(torch.tensor([ids])))
            assert torch.allclose(trace.aux[STATES][row, step], state[0, -1], atol=1e-5)
            logits = victim.network.draw(state[0, -1])
            assert torch.allclose(trace.aux[STEPS][row, step], logits, atol=1e-5)
            for kept, found in zip((STEPS, STATES), again, strict=True):
                assert torch.allclose(trace.aux[kept][row, step], found[row, step], atol=1e-5)
            ids.append(word)


def test_a_generator_can_be_asked_what_follows_rows_that_are_no_words() -> None:
    victim, asked = generator(), prompts(3)
    assert isinstance(victim, Writes)
    text = torch.zeros(3, 2, 16, requires_grad=True)
    logits, states = victim.continued(asked, text)
    assert logits.shape == (3, 3, VOCABULARY)
    assert states.shape == (3, 3, 16)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), text)
    assert gradient[:, 0].any(), "rows before a step are read"
    assert not gradient[:, 1].any(), "rows behind it are not"
