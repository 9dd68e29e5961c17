"""What happens to text with no attacker: fingers slip, words come out of order. Controls."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import Goal
from effattack.domains.tokens import PAD, unpadded
from effattack.errors import UsageError
from effattack.threats import Threat, parse_threat
from effattack.threats.characters import Characters
from effattack.threats.edits import REDRAWN, Edits, Swaps
from effattack.threats.spelling import read
from effattack.threats.typos import Kind as Slip
from effattack.threats.typos import Typo, typed
from effattack.victim import Victim

KEYBOARD = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Rows of keys; a finger that misses one meets its neighbour."""
BESIDE = {
    key: "".join(row[place - 1 : place] + row[place + 1 : place + 2])
    for row in KEYBOARD
    for place, key in enumerate(row)
}


class Wording(Attack):
    """A text that somebody wrote badly, inside a budget of its own kind."""

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    takes = "tokens"
    budgeted = False
    within: ClassVar[type[Edits]]
    """The threats that say how much of it there may be."""
    much: ClassVar[str]
    """The usual one, as text."""
    threat: Edits

    @classmethod
    def usual(cls, victim: Victim) -> Threat:
        return parse_threat(cls.much)

    def prepare(self) -> None:
        if not isinstance(self.threat, self.within):
            raise UsageError(
                f"{self.label} is no matter of {self.threat}: give it another size of {self.much}"
            )

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        rows = [self.written(row.tolist(), generator) for row in unpadded(clean)]
        width = max(clean.shape[1], *map(len, rows))
        found = torch.tensor([row + [PAD] * (width - len(row)) for row in rows]).to(clean)
        return self.threat.on_grid(found, clean)

    @abstractmethod
    def written(self, ids: list[int], generator: Generator) -> list[int]:
        """A prompt as it may be written, of the budget."""


class Misspelling(Wording):
    """Slips of the typing hand, as many as the budget has, in letters drawn evenly.

    A letter is left out, typed twice, replaced by its neighbour on the keyboard, or changes places
    with the next one; the last two are kinds of synthetic noise in Belinkov and Bisk, "Synthetic
    and Natural Noise Both Break Neural Machine Translation", ICLR 2018 (arXiv 1711.02173). Slips
    whose text could not be sent are drawn again, at most 16 times for each of the budget.

    Args:
        victim: any victim of prompts with a tokenizer.
        threat: ``chars:k``, by default of two slips.
        seed: of the slips.

    Raises:
        NotApplicable: for a victim without a tokenizer.
        UsageError: for a threat of another kind.
    """

    label = "misspelling"
    within, much = Characters, "chars:2"
    threat: Characters

    def written(self, ids: list[int], generator: Generator) -> list[int]:
        spelling = self.threat.spelling
        text, found, done = spelling.text(ids), ids, list[Typo]()
        for _ in range(self.threat.count * REDRAWN):
            slip = _slip(text, generator)
            if slip is None or len(done) == self.threat.count:
                break
            if not any(slip.clashes(other) for other in done):
                tried = spelling.ids(typed(text, [*done, slip]))
                if tried is not None:
                    found, done = tried, [*done, slip]
        return found


class WordOrder(Wording):
    """Neighbouring words change places, pair after pair, as far as the budget reaches.

    Words are what stands between blanks, or, of a victim without a tokenizer, tokens; one of
    several tokens moves as a whole. Which pair is next is drawn evenly. A prompt of one word stays.

    Args:
        victim: any victim of prompts.
        threat: ``swap:k``, by default of four tokens.
        seed: of the pairs.

    Raises:
        UsageError: for a threat of another kind.
    """

    label = "word_order"
    within, much = Swaps, "swap:4"
    threat: Swaps

    def written(self, ids: list[int], generator: Generator) -> list[int]:
        words = self._words(ids)
        found, moved = ids, set[int]()
        for place in torch.randperm(max(len(words) - 1, 0), generator=generator).tolist():
            if not moved & {place, place + 1}:
                turned = [*words]
                turned[place : place + 2] = turned[place : place + 2][::-1]
                tried = self._ids(turned)
                if len(tried) == len(ids) and self._inside(tried, ids):
                    words, found, moved = turned, tried, moved | {place, place + 1}
        return found

    def _words(self, ids: list[int]) -> list[str]:
        """Without a tokenizer, the numbers of the tokens."""
        tokenizer = self.threat.domain.tokenizer
        return [*map(str, ids)] if tokenizer is None else tokenizer.decode(ids).split(" ")

    def _ids(self, words: list[str]) -> list[int]:
        tokenizer = self.threat.domain.tokenizer
        return [*map(int, words)] if tokenizer is None else read(tokenizer, " ".join(words))

    def _inside(self, tried: list[int], ids: list[int]) -> bool:
        return bool(self.threat.contains(torch.tensor([tried]), torch.tensor([ids])).item())


def _slip(text: str, generator: Generator) -> Typo | None:
    """One in a letter or digit of a text, of a kind that there is at it; None without any."""
    places = [place for place, key in enumerate(text) if key.isalnum()]
    if not places:
        return None
    place = places[int(torch.randint(len(places), (), generator=generator))]
    key = text[place]
    slips = [Typo(place, Slip.DELETE), Typo(place, Slip.INSERT, key)]
    slips += [Typo(place, Slip.REPLACE, _as(key, other)) for other in BESIDE.get(key.lower(), "")]
    if place + 1 < len(text) and text[place + 1].isalnum() and text[place + 1] != key:
        slips.append(Typo(place, Slip.TURN))
    kinds = sorted({slip.kind for slip in slips})
    kind = kinds[int(torch.randint(len(kinds), (), generator=generator))]
    alike = [slip for slip in slips if slip.kind == kind]
    return alike[int(torch.randint(len(alike), (), generator=generator))]


def _as(key: str, other: str) -> str:
    return other.upper() if key.isupper() else other
