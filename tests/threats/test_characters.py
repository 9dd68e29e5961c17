"""Typing errors: distances of an independent definition, and what the tokenizer gives back."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest
import torch
from drawn import generators, reproducible
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.attacks.searches.words import RandomWords
from effattack.domains import Pixels, Tokens
from effattack.domains.properties import same
from effattack.domains.tokens import PAD, lengths, unpadded
from effattack.errors import MeasurementError, NotApplicable, UsageError
from effattack.models_zoo.text.pieces import Pieces
from effattack.threats import parse_threat
from effattack.threats.characters import Characters
from effattack.threats.edits import drawn_slots
from effattack.threats.typos import possible, typed, typos

WORDS = ["aba", "ab", "a", "b", "##b", "##ba", "##a", "c", "##c", "!", "##!"]
DOMAIN = Tokens(len(WORDS), 12, Pieces(WORDS))
short = st.text(alphabet="ab c", max_size=5)


@cache
def damerau_levenshtein(one: str, other: str) -> int:
    """Of two texts, by its recursive definition (restricted: optimal string alignment)."""
    if not one or not other:
        return len(one) + len(other)
    ways = [
        damerau_levenshtein(one[1:], other) + 1,
        damerau_levenshtein(one, other[1:]) + 1,
        damerau_levenshtein(one[1:], other[1:]) + (one[0] != other[0]),
    ]
    if one[:2] == other[1::-1] and len(one) > 1 and len(other) > 1:
        ways.append(damerau_levenshtein(one[2:], other[2:]) + 1)
    return min(ways)


def encoded(texts: Iterable[str]) -> Tensor:
    rows = [torch.tensor(DOMAIN.tokenizer.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def decoded(ids: Tensor) -> list[str]:
    return [DOMAIN.tokenizer.decode(row.tolist()) for row in unpadded(ids)]


def clean_prompts(generator: Generator) -> Tensor:
    """Three prompts as a user types them."""
    found = []
    for _ in range(3):
        size = int(torch.randint(1, 9, (1,), generator=generator))
        signs = torch.randint(0, 4, (size,), generator=generator).tolist()
        found.append(" ".join("".join("ab c"[k] for k in signs).split()) or "a")
    return encoded(found)


def check_inside(found: Tensor, clean: Tensor, threat: Characters) -> None:
    """By no code of the threat."""
    for row, text, plain in zip(unpadded(found), decoded(found), decoded(clean), strict=True):
        assert damerau_levenshtein(plain, text) <= threat.count
        assert DOMAIN.tokenizer.encode(text) == row.tolist()
        assert set(text) <= set("abc! ")
        assert 1 <= len(row) <= DOMAIN.longest
    threat.check(found, clean)


@given(short, short)
def test_typos_are_as_few_as_can_be(one: str, other: str) -> None:
    found = typos(one, other)
    assert typed(one, found) == other
    assert len(found) == damerau_levenshtein(one, other)


@given(short.filter(bool), st.data())
def test_possible_errors_are_all_texts_at_distance_one(text: str, data: st.DataObject) -> None:
    near = {typed(text, [typo]) for typo in possible(text, "ab c")}
    assert all(damerau_levenshtein(text, other) <= 1 for other in near)
    other = data.draw(short)
    assert (other in near) == (damerau_levenshtein(text, other) <= 1)


@reproducible
@given(st.integers(1, 3), generators())
def test_where_a_search_starts_is_inside(count: int, generator: Generator) -> None:
    threat, clean = Characters(count).on(DOMAIN), clean_prompts(generator)
    started = threat.start(clean, generator)
    check_inside(started, clean, threat)
    assert not same(started, clean)
    assert same(threat.on_grid(started, clean), started), "what is inside stays"


@pytest.mark.slow
@reproducible
@given(st.integers(1, 3), generators())
def test_whatever_a_search_puts_is_inside(count: int, generator: Generator) -> None:
    threat, clean = Characters(count).on(DOMAIN), clean_prompts(generator)
    found = clean
    for slot in drawn_slots(threat.writable(clean), 6, generator).T:
        words = threat.draw(clean, generator)
        found = threat.put(found, clean, slot, words, generator)
        check_inside(found, clean, threat)
        assert same(threat.on_grid(found, clean), found)
    anything = DOMAIN.disturbed(threat.largest(clean), generator)
    check_inside(threat.on_grid(anything, clean), clean, threat)


@pytest.mark.slow
@reproducible
@given(generators())
def test_one_error_is_enumerated_and_no_prompt_is_longer_than_the_largest(
    generator: Generator,
) -> None:
    threat = Characters(1).on(DOMAIN)
    clean = clean_prompts(generator)[:1]
    clean = clean[:, : int(lengths(clean)[0])]
    listed = [text for batch in threat.every(clean, 64) for text in decoded(batch)]
    (plain,) = decoded(clean)
    expected = {plain}
    for place in range(len(plain) + 1):
        for sign in ("", *"abc! "):
            rest = plain[place:]
            near = (plain[:place] + sign + rest, plain[:place] + sign + rest[1:])
            expected |= {*near, plain[:place] + rest[1::-1] + rest[2:]}
    expected = {t for t in expected if t and " ".join(t.split()) == t}
    expected = {t for t in expected if 0 < len(DOMAIN.tokenizer.encode(t)) <= DOMAIN.longest}
    assert set(listed) == expected
    assert len(set(listed)) == len(listed) <= threat.members(clean)
    most = max(len(DOMAIN.tokenizer.encode(text)) for text in listed)
    assert most <= int(lengths(threat.largest(clean))[0])


@pytest.mark.slow
@reproducible
@given(st.integers(2, 3), generators())
def test_no_prompt_of_more_errors_is_longer_than_the_largest(
    count: int, generator: Generator
) -> None:
    threat, clean = Characters(count).on(DOMAIN), clean_prompts(generator)
    most = lengths(threat.largest(clean))
    DOMAIN.check(threat.largest(clean))
    for _ in range(4):
        assert (lengths(threat.start(clean, generator)) <= most).all()


@pytest.mark.parametrize(
    ("text", "after", "inside"),
    [
        ("chars:1", "aba b", True),
        ("chars:1", "abab", True),
        ("chars:1", "aba c", True),
        ("chars:1", "baa b", True),
        ("chars:1", "ab ab", True),
        ("chars:1", "aba b!", True),
        ("chars:1", "aba cc", False),
        ("chars:2", "aba cc", True),
        ("chars:2", "baa", False),
    ],
)
def test_what_a_budget_holds(text: str, after: str, inside: bool) -> None:
    threat, clean = parse_threat(text).on(DOMAIN), encoded(["aba b"])
    assert str(threat) == text
    assert threat.contains(encoded([after]), clean).tolist() == [inside]
    if not inside:
        with pytest.raises(MeasurementError, match=f"prompts outside the budget {text}"):
            threat.check(encoded([after]), clean)


def test_ids_that_the_text_does_not_have_are_outside() -> None:
    clean = encoded(["aba b"])
    other = torch.tensor([[WORDS.index("ab"), WORDS.index("##a"), WORDS.index("b")]])
    assert decoded(other) == ["aba b"]
    assert not Characters(1).on(DOMAIN).contains(other, clean).any()


def test_a_slot_that_a_shorter_text_does_not_have_changes_nothing() -> None:
    threat, clean = Characters(1).on(DOMAIN), encoded(["aba b", "a"])
    free = threat.writable(clean)
    assert free[1].nonzero()[:, 0].tolist() == [0, 1, 2, 4]
    for slot in (~free[1]).nonzero()[:, 0]:
        words = torch.full((2,), ord("c"))
        found = threat.put(clean, clean, slot.repeat(2), words, Generator())
        assert decoded(found)[1] == "a"


def test_random_errors_are_of_every_kind_and_stand_everywhere() -> None:
    threat, clean = Characters(1).on(DOMAIN), encoded(["ab c"]).repeat(300, 1)
    found = set(decoded(threat.start(clean, Generator().manual_seed(0))))
    assert found >= {"ba c", "abc", "a c", "b c", "ab a", "ab ca", "aab c", "ab !", "a bc"}


def test_the_gain_of_an_error_is_that_of_the_tokens_it_makes() -> None:
    threat, clean = Characters(1).on(DOMAIN), encoded(["aba b"])

    def slopes(ids: Tensor) -> Tensor:
        places = 100.0 * torch.arange(threat.editable(clean).shape[1])
        return (places[:, None] + ids)[None]

    gain = threat.gains(clean, clean, slopes, Generator().manual_seed(0))
    words = threat.words()
    free = threat.writable(clean)
    assert gain.shape == (*free.shape, len(words))
    assert gain.isfinite().sum() > 20
    c = words.index(ord("c"))
    assert gain[0, 4 * 4 + 1, c] == 100 + WORDS.index("c"), "b in place 1 is replaced by c"
    ab, inside = WORDS.index("ab"), WORDS.index("##c")
    assert gain[0, 4 * 2 + 1, c] == ab + inside, "aba in place 0 is replaced by two tokens"
    assert (gain[0][~free[0]] == -torch.inf).all()


@pytest.mark.slow
@reproducible
@given(generators())
def test_random_words_search_characters_too(generator: Generator) -> None:
    threat, clean = Characters(2).on(DOMAIN), clean_prompts(generator)
    wide = torch.nn.functional.pad(clean, (0, DOMAIN.longest - clean.shape[1]), value=PAD)
    for query in range(3):
        found = RandomWords(8).proposed(wide, clean, threat, query, generator)
        check_inside(found, clean, threat)


def test_without_a_tokenizer_it_does_not_apply() -> None:
    with pytest.raises(NotApplicable, match="chars:2 changes characters, and the victim has no to"):
        parse_threat("chars:2").on(Tokens(9, 7))
    with pytest.raises(NotApplicable, match="chars:2 changes tokens, which images are not"):
        parse_threat("chars:2").on(Pixels((1, 4, 4)))


@pytest.mark.parametrize("text", ["chars:0", "chars:1.5", "chars:-1"])
def test_counts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match=r"the count of characters = .*a whole number of at least"):
        parse_threat(text)


def test_a_tokenizer_that_gives_nothing_back() -> None:
    class Mute:
        def encode(self, text: str) -> list[int]:
            raise UsageError(f"{text!r} cannot be read")

        def decode(self, ids: list[int]) -> str:
            return "é" * len(ids)

    with pytest.raises(UsageError, match="so nothing can be typed: write swap:3"):
        parse_threat("chars:1").on(Tokens(9, 7, Mute()))
