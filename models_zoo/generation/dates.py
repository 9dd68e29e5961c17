"""Dates in words, and what they are in ISO 8601: prompts whose exact answers are known, by rule.

``"the third of march nineteen ninety four"`` is ``"1994-03-03"``, ``"the day after the last day of
february 1996"`` is ``"1996-03-01"``, and an interval is two dates:
``"from 3 march 1994 to 5 march 1994"`` is ``"1994-03-03/1994-03-05"``.

A template is a frame with the form of its dates and of their years, and belongs to one split: no
template of the test prompts is ever trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from itertools import product
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from effattack.domains.tokens import PAD, Tokens
from effattack.errors import UsageError


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in order."""
    return tuple(re.findall("[a-z]+", text))


MONTHS = words(
    "january february march april may june july august september october november december"
)
SMALL = words(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
ORDINALS = words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth "
    "fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
FORMS = (
    "the {ordinal} of {month} {year}",
    "the {ordinal} day of {month} {year}",
    "the last day of {month} {year}",
    "{ordinal} {month} {year}",
    "{month} the {ordinal} {year}",
    "{month} {ordinal} in {year}",
    "{number} {month} {year}",
    "{month} {number} of {year}",
    "{year} {month} {number}",
)
FRAMES = {
    "{a}": 0,
    "on {a}": 0,
    "it was {a}": 0,
    "the date is {a}": 0,
    "we met on {a}": 0,
    "born on {a}": 0,
    "due by {a}": 0,
    "please write {a}": 0,
    "the day after {a}": 1,
    "it was the day after {a}": 1,
    "due by the day after {a}": 1,
    "the day before {a}": -1,
    "we met the day before {a}": -1,
    "please write the day before {a}": -1,
    "from {a} to {b}": 0,
    "open from {a} until {b}": 0,
    "it lasts from {a} to {b}": 0,
    "between {a} and {b}": 0,
    "closed between {a} and {b}": 0,
    "we met between {a} and {b}": 0,
}
"""What stands around dates -> days between what is named and what is meant."""
SPLITS = {"train": (0, 60_000), "heldout": (1, 200), "test": (2, 200)}
"""Seed and number of prompts of each split."""
FIRST, LAST = date(1900, 1, 2), date(2097, 12, 31)
"""Days that prompts begin with."""


class Template(NamedTuple):
    """A frame, the form of its dates, and whether years are digits."""

    frame: str
    form: str
    digits: bool

    @property
    def split(self) -> str:
        """Which split it belongs to."""
        place = crc32("|".join(map(str, self)).encode()) % 10
        return {0: "test", 1: "heldout"}.get(place, "train")

    def asked(self, first: date, last: date) -> str:
        """The prompt about one date, or two."""
        return self.frame.format(a=self._named(first), b=self._named(last))

    def meant(self, first: date, last: date) -> str:
        """The exact answer."""
        found = (first + timedelta(FRAMES[self.frame])).isoformat()
        return f"{found}/{last.isoformat()}" if "{b}" in self.frame else found

    def _named(self, day: date) -> str:
        return self.form.format(
            ordinal=ordinal(day.day),
            number=day.day,
            month=MONTHS[day.month - 1],
            year=day.year if self.digits else year(day.year),
        )


TEMPLATES = tuple(Template(*parts) for parts in product(FRAMES, FORMS, (False, True)))


def ordinal(day: int) -> str:
    """1 -> first, 21 -> twenty first."""
    if day <= 20:
        return ORDINALS[day - 1]
    return "thirtieth" if day == 30 else f"{TENS[day // 10 - 2]} {ORDINALS[day % 10 - 1]}"


def number(count: int) -> str:
    """1 to 99 in words."""
    if count < 20:
        return SMALL[count - 1]
    tens, ones = TENS[count // 10 - 2], count % 10
    return f"{tens} {SMALL[ones - 1]}" if ones else tens


def year(count: int) -> str:
    """1900 to 2099 as it is said: nineteen ninety four, nineteen oh four, two thousand and four."""
    century, rest = divmod(count, 100)
    if century == 20 and rest < 10:
        return f"two thousand and {number(rest)}" if rest else "two thousand"
    if rest == 0:
        return f"{number(century)} hundred"
    return f"{number(century)} {'oh ' if rest < 10 else ''}{number(rest)}"


SIGNS = "0123456789-/"
END = 0
"""The end token; signs follow it, then words."""
WRITTEN = 1 + len(SIGNS)
"""Ids that answers are made of, the end token included."""
WORDS = tuple(
    sorted(
        {*MONTHS, *SMALL, *TENS, *ORDINALS, "thirtieth", "hundred", "thousand", "oh", "and"}
        | set(words(re.sub("{.*?}", "", " ".join((*FRAMES, *FORMS)))))
    )
)
VOCABULARY = WRITTEN + len(WORDS)
LONGEST = 40
"""Most tokens of a prompt."""


class WordsAndSigns:
    """A token per word, and one per digit, hyphen and stroke; the end token has none."""

    def encode(self, text: str) -> list[int]:
        """Raises UsageError for what no token stands for."""
        found = []
        for part in re.findall(r"[a-z]+|\S", text):
            if part not in PIECES:
                raise UsageError(
                    f"no token stands for {part!r}: write dates in small letters and digits"
                )
            found.append(PIECES[part])
        return found

    def decode(self, ids: list[int]) -> str:
        """Signs in a row stand together."""
        text = " ".join(TEXTS[i] for i in ids if i != END)
        return re.sub("(?<=[0-9/-]) (?=[0-9/-])", "", text)


TEXTS = ("", *SIGNS, *WORDS)
PIECES = {text: i for i, text in enumerate(TEXTS) if i != END}
DOMAIN = Tokens(VOCABULARY, LONGEST, WordsAndSigns(), special=(END,))


@cache
def pairs(split: str) -> tuple[tuple[str, str], ...]:
    """Prompts and exact answers. Every template is as likely, every other one is about the first or
    the last day of a month."""
    seed, count = SPLITS[split]
    draw = np.random.Generator(np.random.PCG64(seed))
    mine = [template for template in TEMPLATES if template.split == split]
    found = []
    for _ in range(count):
        template = mine[draw.integers(len(mine))]
        first = date.fromordinal(int(draw.integers(FIRST.toordinal(), LAST.toordinal() + 1)))
        last = first + timedelta(int(draw.integers(1, 400)))
        if "last" in template.form or draw.random() < 0.5:
            first, last = _end_of_month(first), _end_of_month(last + timedelta(31))
            if "last" not in template.form and draw.random() < 0.5:
                first = first + timedelta(1)
        found.append((template.asked(first, last), template.meant(first, last)))
    return tuple(found)


def encoded(texts: Sequence[str]) -> Tensor:
    """Texts -> ids (B, L), padded."""
    rows = [torch.tensor(WordsAndSigns().encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def dates(split: str) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) and exact answers (B, M), padded, of one split: train, heldout or test."""
    asked, meant = zip(*pairs(split), strict=True)
    return encoded(asked), encoded(meant)


def scored_prompts() -> tuple[Tensor, Tensor]:
    """The 200 test prompts that embedded victims are scored on, and their exact answers."""
    return dates("test")


def _end_of_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(31)).replace(day=1) - timedelta(1)
