"""Requests to an assistant, made by a recipe, so that what they ask for is known exactly.

A clause ("book a flight to oslo") asks for one of six things; a frame stands around it ("please
... ."), and some frames name a second clause that is *not* asked for ("rather than ... , ..."). The
label of a sentence is what it asks for; the tag of a piece of a word is the slot that it fills.
Places are of the time-zone database, names are syllables, letters, or words that are also a place
or a month: only the sentence tells which.

A template is a frame with its clauses, and belongs to one split: no template of the test sentences
is ever trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from effattack.domains.tokens import PAD, Tokens
from effattack.models_zoo.text.pieces import INSIDE, Pieces

T = TypeVar("T")

CLAUSES: dict[str, tuple[str, ...]] = {
    "weather": (
        "tell me the weather in {place}",
        "check if it rains in {place} in {month}",
        "show the forecast for {place}",
        "say how warm {place} is in {month}",
    ),
    "travel": (
        "book a flight to {place}",
        "find a train to {place} on {day} {month}",
        "reserve a room in {place} for {number} nights",
        "plan a trip to {place}",
    ),
    "meeting": (
        "set up a meeting with {name}",
        "arrange a call with {name} on {day} {month}",
        "invite {name} to lunch",
        "put {name} on my list for {month}",
    ),
    "payment": (
        "send {number} euros to {name}",
        "pay {name} {number} euros",
        "transfer {number} euros to {name} in {place}",
        "settle the bill of {number} euros",
    ),
    "message": (
        "write a note to {name}",
        "let {name} know that i am late",
        "mail {name} about {place}",
        "tell {name} that i am in {place}",
    ),
    "time": (
        "tell me the time in {place}",
        "say how late it is in {place}",
        "show the clock for {place}",
        "check the time in {place} on {day} {month}",
    ),
}
"""What is asked for -> clauses that ask for it."""
PLAIN = (
    "{a}",
    "please {a}",
    "could you {a} ?",
    "i want you to {a}",
    "{a} now , thank you",
)
EITHER = (
    "do not {b} , {a}",
    "{a} , do not {b}",
    "rather than {b} , {a}",
    "{a} rather than {b}",
    "i want you to {a} and not to {b}",
    "could you {a} before i {b} ?",
)
"""Frames of a clause that is asked for, and one that is not."""
CLASSES = tuple(CLAUSES)
TAGS = ("other", "place", "name", "date", "number")
SLOTS = {"place": 1, "name": 2, "month": 3, "day": 3, "number": 4}
PLACES = (
    "accra",
    "algiers",
    "amman",
    "amsterdam",
    "anchorage",
    "andorra",
    "aruba",
    "athens",
    "baghdad",
    "bangkok",
    "barbados",
    "beirut",
    "belgrade",
    "berlin",
    "bermuda",
    "bogota",
    "boise",
    "bratislava",
    "brussels",
    "bucharest",
    "budapest",
    "cairo",
    "caracas",
    "casablanca",
    "chicago",
    "colombo",
    "copenhagen",
    "dakar",
    "damascus",
    "darwin",
    "denver",
    "dhaka",
    "dubai",
    "dublin",
    "gibraltar",
    "harare",
    "havana",
    "helsinki",
    "istanbul",
    "jamaica",
    "jerusalem",
    "juneau",
    "karachi",
    "kiev",
    "lagos",
    "lima",
    "lisbon",
    "london",
    "luxembourg",
    "madrid",
    "malta",
    "manila",
    "melbourne",
    "monaco",
    "moscow",
    "nairobi",
    "oslo",
    "paris",
    "perth",
    "prague",
    "qatar",
    "riga",
    "rome",
    "samara",
    "santiago",
    "seoul",
    "singapore",
    "sofia",
    "sydney",
    "taipei",
    "tokyo",
    "toronto",
    "tunis",
    "vienna",
    "vilnius",
    "warsaw",
    "winnipeg",
    "zurich",
)
"""Last parts of names in the time-zone database."""
MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
DAYS, NUMBERS = 28, 60
FIRST = (
    "ka",
    "ri",
    "mo",
    "ta",
    "le",
    "su",
    "no",
    "vi",
    "ba",
    "do",
    "fe",
    "zu",
)
LATER = (
    "na",
    "ri",
    "lo",
    "ta",
    "mi",
    "sa",
    "ren",
    "do",
    "ka",
    "lin",
)
SHARED = (
    "paris",
    "sydney",
    "sofia",
    "vienna",
    "samara",
    "madrid",
    "denver",
    "darwin",
    "april",
    "may",
    "june",
    "august",
)
"""Names that are also places or months."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 32
"""Most pieces of one sentence that the victims take."""
SPLITS = {"train": (0, 12_000), "heldout": (1, 600), "test": (2, 300)}
"""Seed and number of sentences of each split."""
HELD_OUT = 5
"""Of so many templates in a row, one is tested on, and one chooses thresholds."""


class Template(NamedTuple):
    """A frame with its clauses, and what it asks for."""

    text: str
    label: int


class Sentence(NamedTuple):
    """A text and what is known of it."""

    text: str
    label: int
    tags: tuple[int, ...]
    """One per word."""


def templates() -> Iterator[tuple[Template, bool]]:
    """All templates, in order, and whether they name a clause that is not asked for."""
    clauses = [(kind, clause) for kind, each in enumerate(CLAUSES.values()) for clause in each]
    for frame, (kind, a) in product(PLAIN, clauses):
        yield Template(frame.format(a=a), kind), False
    for frame, (kind, a), (other, b) in product(EITHER, clauses, clauses):
        if kind != other:
            yield Template(frame.format(a=a, b=b), kind), True


def of_split(split: str) -> tuple[list[Template], list[Template]]:
    """The templates of a split: of one clause, and of two."""
    found: tuple[list[Template], list[Template]] = ([], [])
    part = {"test": (0,), "heldout": (1,)}.get(split, (2, 3, 4))
    for index, (template, either) in enumerate(templates()):
        if (index + index // HELD_OUT) % HELD_OUT in part:
            found[either].append(template)
    return found


def sentences(split: str) -> list[Sentence]:
    """The sentences of a split, the same on every machine; six in ten have one clause."""
    seed, count = SPLITS[split]
    draw = np.random.Generator(np.random.PCG64(seed))
    plain, either = of_split(split)
    return [
        filled(draw, _one(draw, plain if draw.random() < 0.6 else either)) for _ in range(count)
    ]


def filled(draw: np.random.Generator, template: Template) -> Sentence:
    """A sentence of a template: every slot filled anew."""
    words, tags = [], []
    for word in template.text.split():
        slot = re.fullmatch(r"\{(\w+)\}", word)
        words.append(FILLERS[slot[1]](draw) if slot else word)
        tags.append(SLOTS[slot[1]] if slot else 0)
    return Sentence(" ".join(words), template.label, tuple(tags))


def _one(draw: np.random.Generator, things: Sequence[T]) -> T:
    return things[int(draw.integers(len(things)))]


def _name(draw: np.random.Generator) -> str:
    kind = draw.random()
    if kind < 0.3:
        return _one(draw, SHARED)
    if kind < 0.4:
        return "".join(_one(draw, LETTERS) for _ in range(int(draw.integers(3, 5))))
    parts = (_one(draw, LATER) for _ in range(int(draw.integers(1, 3))))
    return _one(draw, FIRST) + "".join(parts)


FILLERS: dict[str, Callable[[np.random.Generator], str]] = {
    "place": lambda draw: _one(draw, PLACES),
    "name": _name,
    "month": lambda draw: _one(draw, MONTHS),
    "day": lambda draw: str(draw.integers(1, DAYS + 1)),
    "number": lambda draw: str(draw.integers(1, NUMBERS + 1)),
}


@cache
def pieces() -> Pieces:
    """The vocabulary: all words of clauses and frames, slots, syllables, letters and digits."""
    frames = (*PLAIN, *EITHER, *(clause for each in CLAUSES.values() for clause in each))
    plain = {word for text in frames for word in text.split() if not word.startswith("{")}
    numbers = [str(number) for number in range(1, NUMBERS + 1)]
    characters = [*LETTERS, "0"]
    whole = dict.fromkeys([*sorted(plain), *PLACES, *MONTHS, *numbers, *FIRST, *characters])
    inside = dict.fromkeys([*LATER, *LETTERS, *"0123456789"])
    return Pieces([*whole, *(INSIDE + part for part in inside)])


@cache
def domain() -> Tokens:
    """Prompts of at most 32 pieces, as a user can type them."""
    return Tokens(len(pieces()), LONGEST, pieces())


def padded_rows(rows: list[list[int]]) -> Tensor:
    """Lists of numbers as one tensor, -1 behind the last of each."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows])


@cache
def _encoded(split: str) -> tuple[Tensor, Tensor, Tensor]:
    ids, tags, labels = [], [], []
    for sentence in sentences(split):
        words = [pieces().of_word(word) for word in sentence.text.split()]
        ids.append([piece for word in words for piece in word])
        pairs = zip(words, sentence.tags, strict=True)
        tags.append([tag for word, tag in pairs for _ in word])
        labels.append(sentence.label)
    return padded_rows(ids), torch.tensor(labels), padded_rows(tags)


def requests(split: str) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) and what they ask for (B,), of one split: train, heldout or test."""
    ids, labels, _ = _encoded(split)
    return ids.clone(), labels.clone()


def entities(split: str) -> tuple[Tensor, Tensor]:
    """The same prompts and the tags of their pieces (B, L), -1 behind the last."""
    ids, _, tags = _encoded(split)
    return ids.clone(), tags.clone()


def scored_requests() -> tuple[Tensor, Tensor]:
    """The 300 test sentences that ``text_exit`` is scored on."""
    return requests("test")


def scored_entities() -> tuple[Tensor, Tensor]:
    """The 300 test sentences that ``ner_exit`` is scored on."""
    return entities("test")
