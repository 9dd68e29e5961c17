"""The victims of text: their tokenizer, their sentences, what is decided and what it costs."""

from __future__ import annotations

from zoneinfo import available_timezones

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import embedded_or_skip as load

from effattack.domains import Tokens
from effattack.domains.tokens import PAD, lengths
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Patience
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.recipes import RECIPES
from effattack.models_zoo.text import sentences
from effattack.models_zoo.text.encoder import Encoder, Size
from effattack.models_zoo.text.pieces import Pieces
from effattack.models_zoo.text.sentence_exits import SentenceExits
from effattack.models_zoo.text.token_exits import TokenExits
from effattack.victim import Victim, audit
from effattack.victim.checks import INVARIANTS, Check

SIZE = Size(vocabulary=9, longest=7, width=8, heads=2, hidden=12, depth=3)
PROMPTS = torch.tensor([[1, 2, 3, PAD, PAD], [4, 5, 6, 7, 8], [8, 8, PAD, PAD, PAD]])
NAMES = ("text_exit", "ner_exit")


def made(kind: str, criterion: float = 0.4) -> SentenceExits | TokenExits:
    """Untrained, of known size."""
    torch.manual_seed(2)
    domain = Tokens(SIZE.vocabulary, SIZE.longest)
    if kind == "sentence":
        return SentenceExits(Encoder(SIZE), domain, classes=3, criterion=criterion)
    return TokenExits(Encoder(SIZE), domain, tags=3, criterion=criterion)


def block(running: int, tokens: int) -> int:
    """MACs of one block, counted by hand: query, output, MLP; key, value; two products."""
    return running * (2 * 64 + 2 * 8 * 12) + tokens * 2 * 64 + 2 * running * tokens * 8


@pytest.mark.parametrize("kind", ["sentence", "token"])
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_every_invariant_holds(kind: str, check: Check) -> None:
    check(made(kind), PROMPTS)


@pytest.mark.parametrize(("criterion", "stages"), [(0.0, 1), (1.0, 3)])
def test_macs_of_sentences_are_those_counted_by_hand(criterion: float, stages: int) -> None:
    victim = made("sentence", criterion)
    expected = [stages * (block(n, n) + 8 * 3) for n in (3, 5, 2)]
    assert audit(victim, PROMPTS).macs.tolist() == expected
    assert stages == 1 or victim.ceiling(PROMPTS).tolist() == expected
    assert victim.max_macs == 3 * (block(7, 7) + 8 * 3)


def test_macs_of_tokens_are_those_counted_by_hand() -> None:
    victim = made("token", 0.45)
    trace = victim.trace(PROMPTS)
    running = torch.stack([lengths(PROMPTS), *(gate.active.sum(1) for gate in trace.gates)], 1)
    assert len(running.unique()) > 2, "tokens leave at different blocks"
    for row, (counts, tokens) in enumerate(zip(running.tolist(), [3, 5, 2], strict=True)):
        expected = sum(block(a, tokens) + a * 8 * 3 for a in counts if a)
        assert trace.macs[row] == expected
    assert torch.equal(audit(victim, PROMPTS).macs, trace.macs)


def test_a_token_that_left_keeps_its_tag_and_is_still_seen() -> None:
    victim = made("token", 0.45)
    trace = victim.trace(PROMPTS)
    stages = trace.aux["stage_tags"]
    left = sum(gate.active[:, : PROMPTS.shape[1]].long() for gate in trace.gates)
    said = stages.gather(2, left[:, :, None, None].expand(-1, -1, 1, 3))[:, :, 0]
    there = PROMPTS != PAD
    assert torch.equal(trace.logits[there], said[there])
    assert (trace.logits[~there] == -torch.inf).all()


def test_a_criterion_that_counts_blocks_is_refused_of_tokens() -> None:
    with pytest.raises(UsageError, match="counts blocks in a row"):
        TokenExits(Encoder(SIZE), Tokens(9, 7), tags=3, criterion=Patience(1))


def test_pieces_are_the_longest_first() -> None:
    pieces = Pieces(["ab", "a", "b", "##b", "##ba", "##a"])
    assert pieces.encode(" ABBA  b ") == [0, 4, 2]
    assert pieces.decode([0, 4, 2]) == "abba b"
    with pytest.raises(UsageError, match="'axb' has the character 'x'"):
        pieces.encode("a axb")
    with pytest.raises(UsageError, match="'a' comes twice"):
        Pieces(["a", "b", "a"])


@given(st.text(alphabet=sentences.LETTERS + "0123456789 ", max_size=40))
def test_text_of_known_characters_comes_back(text: str) -> None:
    pieces = sentences.pieces()
    assert pieces.decode(pieces.encode(text)) == " ".join(text.split())


def test_what_an_attacker_writes_are_whole_words() -> None:
    domain, pieces = sentences.domain(), sentences.pieces()
    allowed = domain.allowed()
    told = {piece for piece, may in zip(pieces.pieces, allowed.tolist(), strict=True) if may}
    assert told == {piece for piece in pieces.pieces if not piece.startswith("##")}
    assert domain.stable(sentences.requests("test")[0]).all()


def test_what_a_tokenizer_refuses_is_none_that_can_be_sent() -> None:
    pieces = Pieces(["ab", "c", "##d"])
    domain = Tokens(3, 4, pieces)
    assert domain.allowed().tolist() == [True, True, False], "no piece spells d alone"
    assert domain.stable(torch.tensor([[0, 2], [1, 2], [1, 0], [2, 1]])).tolist() == [
        True,
        True,
        True,
        False,
    ]


def test_places_are_of_the_time_zone_database() -> None:
    known = {zone.rsplit("/", 1)[-1].lower() for zone in available_timezones()}
    if not known:
        pytest.skip("this machine has no time-zone database")
    assert set(sentences.PLACES) <= known
    assert set(sentences.SHARED) <= {*sentences.PLACES, *sentences.MONTHS}


def test_no_template_is_in_two_splits() -> None:
    splits = {
        name: [t.text for t in (*plain, *either)]
        for name in sentences.SPLITS
        for plain, either in [sentences.of_split(name)]
    }
    everything = [text for texts in splits.values() for text in texts]
    assert len(everything) == len(set(everything)) == sum(1 for _ in sentences.templates())
    trained = {word for text in splits["train"] for word in text.split()}
    assert {word for text in everything for word in text.split()} == trained


def test_sentences_are_the_same_everywhere() -> None:
    first = sentences.sentences("test")[0]
    assert len(first.tags) == len(first.text.split())
    assert first == sentences.sentences("test")[0]
    prompts, tags = sentences.entities("test")
    assert torch.equal(lengths(prompts), (tags >= 0).sum(1))
    assert prompts.shape == (300, tags.shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_the_card_agrees(name: str) -> None:
    victim: Victim = load(name)
    card = read_card(name)
    prompts, labels = (
        sentences.requests("test") if name == "text_exit" else sentences.entities("test")
    )
    trace = victim.trace(prompts)
    right = victim.task.right(victim.task.answer(trace.logits), labels).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=1.01 / 300)
    assert card["accuracy"] >= max(0.95, card["dense_accuracy"] - 0.02)
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)
    assert victim.ceiling(prompts).mean().item() == pytest.approx(card["mean_ceiling"], abs=1)
    assert card["clean_macs"] <= 0.75 * card["mean_ceiling"]
    assert round(victim.max_macs) == card["max_macs"]
    assert card["recipe"].split()[-1] in RECIPES
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", INVARIANTS, ids=lambda check: check.__name__)
def test_trained_victims_keep_the_contract(name: str, check: Check) -> None:
    check(load(name), sentences.requests("test")[0][:12])


def test_tags_of_a_batch_that_is_wider_than_its_prompts_are_the_same() -> None:
    victim, task = made("token", 0.45), made("token").task
    wide = torch.nn.functional.pad(PROMPTS, (0, 2), value=PAD)
    with torch.no_grad():
        found, expected = victim(wide), victim(PROMPTS)
    assert task.close(found, expected, 1e-6).all()
    other = expected.clone()
    other[1, 0, 0] += 1
    assert task.gap(found, other).gt(0.1).tolist() == [False, True, False]
    shorter = expected.clone()
    shorter[1, 4] = -torch.inf
    assert task.gap(found, shorter)[1] == torch.inf
