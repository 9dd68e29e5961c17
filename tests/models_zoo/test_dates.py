"""Dates in words: the language is exact, and the translator that reads it is what its card says."""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, timedelta

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from toys import embedded

from effattack.domains.tokens import lengths
from effattack.errors import UsageError
from effattack.models_zoo.files import WEIGHTS, read_card
from effattack.models_zoo.generation import dates
from effattack.models_zoo.generation.dates import TEMPLATES, Template, WordsAndSigns
from effattack.models_zoo.generation.encoder_decoder import EncoderDecoder
from effattack.models_zoo.recipes.translation import bundles, ended
from effattack.victim import audit

MONTHS = [month.lower() for month in calendar.month_name]
COUNTED = re.findall(
    "[a-z]+",
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty",
)
TENS = {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80}
NUMBERS = {word: i for i, word in enumerate(COUNTED, 1)} | TENS | {"ninety": 90, "oh": 0, "and": 0}
IRREGULAR = {"first": "one", "second": "two", "third": "three", "fifth": "five", "ninth": "nine"}
IRREGULAR |= {"eighth": "eight", "twelfth": "twelve", "twentieth": "twenty", "thirtieth": "thirty"}

days = st.dates(date(1900, 1, 2), date(2097, 12, 31))


def counted(words: list[str]) -> int:
    """What number words and digits say: two thousand and four, twenty oh four, 2004."""
    if words[0].isdigit():
        return int(words[0])
    if "thousand" in words:
        return 2000 + sum(NUMBERS[word] for word in words[2:])
    if "hundred" in words:
        return 100 * NUMBERS[words[0]]
    return 100 * NUMBERS[words[0]] + sum(NUMBERS[word] for word in words[1:])


def cardinal(word: str) -> str:
    return IRREGULAR.get(word, word.removesuffix("th"))


def is_of_day(word: str) -> bool:
    return (word.isdigit() and len(word) < 3) or word in IRREGULAR or cardinal(word) != word


def read(phrase: str) -> date:
    """The day that is named, by another way than the one it was named in."""
    words = [word for word in phrase.split() if word not in ("the", "day", "of", "in")]
    month = next(i for i, word in enumerate(words) if word in MONTHS)
    of_day = [i for i, word in enumerate(words) if is_of_day(word) or word == "last"]
    (last,) = of_day
    if last and words[last - 1] in ("twenty", "thirty") and (last - 1 == 0 or last - 1 > month):
        of_day = [last - 1, last]
    said = [words[i] for i in of_day]
    year = counted([w for i, w in enumerate(words) if i != month and i not in of_day])
    if said == ["last"]:
        return date(
            year,
            MONTHS.index(words[month]),
            calendar.monthrange(year, MONTHS.index(words[month]))[1],
        )
    day = sum(int(w) if w.isdigit() else NUMBERS[cardinal(w)] for w in said)
    return date(year, MONTHS.index(words[month]), day)


def readings(frame: str, asked: str) -> Iterator[list[date]]:
    """The days that a prompt names, by every way to part it into as many phrases that name one:
    "and" stands between two days, and in a year."""
    head, *between, tail = re.split(r"\{[ab]\}", frame)
    inside = asked[len(head) : len(asked) - len(tail)]
    pieces = inside.split(between[0]) if between else [inside]
    for cut in range(1, len(pieces) + (not between)):
        phrases = [pieces[:cut], pieces[cut:]] if between else [pieces]
        with suppress(StopIteration, KeyError, ValueError, IndexError):
            yield [read(between[0].join(phrase) if between else phrase[0]) for phrase in phrases]


@given(template=st.sampled_from(TEMPLATES), first=days, after=st.integers(1, 400))
@example(Template("between {a} and {b}", "{year} {month} {number}", False), date(2001, 1, 1), 1)
def test_what_is_meant_is_what_another_reader_reads(
    template: Template, first: date, after: int
) -> None:
    if "last" in template.form:
        first = (first.replace(day=1) + timedelta(31)).replace(day=1) - timedelta(1)
        after = calendar.monthrange((first + timedelta(1)).year, (first + timedelta(1)).month)[1]
    last = first + timedelta(after)
    named = next(readings(template.frame, template.asked(first, last)))
    shift = (" after {" in template.frame) - (" before {" in template.frame)
    expected = "/".join((day + timedelta(shift)).isoformat() for day in named)
    assert template.meant(first, last) == expected


@pytest.mark.parametrize(
    ("template", "first", "asked", "meant"),
    [
        (
            Template("{a}", "the {ordinal} of {month} {year}", False),
            date(1994, 3, 3),
            "the third of march nineteen ninety four",
            "1994-03-03",
        ),
        (
            Template("the day after {a}", "the last day of {month} {year}", True),
            date(1996, 2, 29),
            "the day after the last day of february 1996",
            "1996-03-01",
        ),
        (
            Template("the day before {a}", "{number} {month} {year}", False),
            date(2000, 3, 1),
            "the day before 1 march two thousand",
            "2000-02-29",
        ),
        (
            Template("from {a} to {b}", "{ordinal} {month} {year}", False),
            date(1907, 12, 31),
            "from thirty first december nineteen oh seven to second january nineteen oh eight",
            "1907-12-31/1908-01-02",
        ),
    ],
)
def test_some_are_known(template: Template, first: date, asked: str, meant: str) -> None:
    last = first + timedelta(2)
    assert (template.asked(first, last), template.meant(first, last)) == (asked, meant)


def test_the_test_prompts_are_the_same_everywhere() -> None:
    prompts, answers = dates.scored_prompts()
    dates.DOMAIN.check(prompts)
    content = b"".join(dates.DOMAIN.pack(prompts)) + b"".join(dates.DOMAIN.pack(answers))
    assert hashlib.sha256(content).hexdigest()[:16] == "9619cf7b46f7ab3d"


def test_no_template_of_test_prompts_is_trained_on() -> None:
    of = {split: {t for t in TEMPLATES if t.split == split} for split in dates.SPLITS}
    assert sum(map(len, of.values())) == len(TEMPLATES)
    assert min(map(len, of.values())) >= 20
    asked = {split: {prompt for prompt, _ in dates.pairs(split)} for split in dates.SPLITS}
    assert not asked["train"] & (asked["heldout"] | asked["test"])
    assert not asked["heldout"] & asked["test"]


@given(ids=st.lists(st.integers(1, dates.VOCABULARY - 1), min_size=1, max_size=dates.LONGEST))
def test_ids_survive_their_text(ids: list[int]) -> None:
    assert WordsAndSigns().encode(WordsAndSigns().decode(ids)) == ids


def test_answers_are_written_as_iso_has_them() -> None:
    for _, answer in dates.pairs("test")[:20]:
        ids = WordsAndSigns().encode(answer)
        assert WordsAndSigns().decode(ids) == answer
        assert max(ids) < dates.WRITTEN


@pytest.mark.parametrize("text", ["the third of Marchember", "3 march, 1994"])
def test_what_no_token_stands_for_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"no token stands for '.*': write dates in small letters"):
        WordsAndSigns().encode(text)


def test_prompts_are_learned_in_bundles_of_one_length() -> None:
    victim = embedded("dates_translator")
    assert isinstance(victim, EncoderDecoder)
    prompts, answers = dates.dates("heldout")
    texts = ended(victim, answers)
    assert torch.equal(victim.task.answer(texts)[:, :-1], answers)
    asked, wanted = bundles(prompts.repeat(8, 1), texts.repeat(8, 1))
    for some, several in zip(asked, wanted, strict=True):
        assert len(lengths(some).unique()) == 1
        assert len(some) == len(several) == 64


def test_the_card_agrees() -> None:
    victim, card = embedded("dates_translator"), read_card("dates_translator")
    assert isinstance(victim, EncoderDecoder)
    prompts, answers = dates.scored_prompts()
    trace = victim.trace(prompts)
    right = victim.task.right(victim.task.answer(trace.logits), answers).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=0.0051)
    assert card["accuracy"] >= 0.97
    assert trace.also["passes"].mean().item() == pytest.approx(card["clean_passes"], abs=0.3)
    assert card["clean_passes"] <= card["cap"] / 2, "there are savings to lose"
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=0.02)
    assert (round(victim.max_macs), victim.cap) == (card["max_macs"], card["cap"])
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]
    assert (WEIGHTS / "dates_translator.safetensors").stat().st_size <= 600_000


def test_its_declared_work_is_executed_work() -> None:
    victim, (prompts, _) = embedded("dates_translator"), dates.scored_prompts()
    found, trace = audit(victim, prompts[:4]), victim.trace(prompts[:4])
    assert torch.equal(found.macs, trace.macs)
    assert torch.equal(found.counts["passes"], lengths(trace.logits).double())
