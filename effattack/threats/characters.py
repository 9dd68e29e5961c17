"""Characters of a user's text may change; a tokenizer says what a victim reads then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

import torch
from torch import Generator, Tensor

from effattack.budgets import check_count
from effattack.domains import Domain
from effattack.domains.tokens import PAD, as_wide, lengths, unpadded
from effattack.errors import NotApplicable, UsageError
from effattack.threats.edits import REDRAWN, Edits, Slopes, drawn_slots
from effattack.threats.spelling import Spelling
from effattack.threats.typos import Kind, Typo, common, possible, typed, typos

LOOKED_AT = 512
"""Errors per prompt whose linearised gain a search is told, at most."""


class Characters(Edits):
    """At most ``count`` typing errors anywhere in the text of a prompt; ``eps`` is the count.

    A character is inserted, replaced, deleted, or changes places with the next; the blank is one
    too. What is typed is printable ASCII that the tokenizer gives back as it is. An edited text
    counts only if it comes back from the tokenizer character by character: what is counted is the
    distance between the decoded texts (optimal string alignment).

    A slot is one kind of error at one character of the clean text, and a word is a character: so
    the searches on prompts look here as they do elsewhere.

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    name = "chars"

    def __init__(self, count: int) -> None:
        self.count = check_count(count, "the count of characters")
        self.eps = float(self.count)

    def on(self, domain: Domain) -> Self:
        """This threat in a domain.

        Raises:
            NotApplicable: of inputs that are no prompts, or that have no text.
            UsageError: if the tokenizer gives no character back.
        """
        bound = super().on(domain)
        if bound.domain.tokenizer is None:
            raise NotApplicable(
                f"{self} changes characters, and the victim has no tokenizer, so its prompts have "
                "no text: give its domain one, Tokens(..., tokenizer=...), or write swap:3"
            )
        if not bound.spelling.alphabet:
            raise UsageError(
                f"{self}: the victim's tokenizer gives no printable ASCII character back as it is, "
                "so nothing can be typed: write swap:3"
            )
        return bound

    @property
    def spelling(self) -> Spelling:
        """Of the victim's prompts."""
        return Spelling(self.domain)

    def words(self) -> list[int]:
        """Code points of what can be typed."""
        return [ord(character) for character in self.spelling.alphabet]

    def draw(self, clean: Tensor, generator: Generator) -> Tensor:
        words = torch.tensor(self.words())
        return words[torch.randint(len(words), (len(clean),), generator=generator)]

    def editable(self, clean: Tensor) -> Tensor:
        """Every token of the longest: any may be spelled otherwise."""
        return torch.arange(self.largest(clean).shape[1], device=clean.device).repeat(len(clean), 1)

    def writable(self, clean: Tensor) -> Tensor:
        """(B, slots) bool: for every character, and behind the last, one per :class:`Kind`."""
        texts = self.spelling.texts(clean)
        free = torch.zeros(len(clean), max(map(len, texts)) + 1, len(Kind), dtype=torch.bool)
        for row, text in zip(free, texts, strict=True):
            row[: len(text) + 1, Kind.INSERT] = True
            row[: len(text), [Kind.REPLACE, Kind.DELETE]] = True
            row[: max(len(text) - 1, 0), Kind.TURN] = True
        return free.flatten(1).to(clean.device)

    def put(
        self, inputs: Tensor, clean: Tensor, slots: Tensor, words: Tensor, generator: Generator
    ) -> Tensor:
        """Errors that clash with the new one give way; then others, drawn evenly, until the budget
        holds. A prompt that could not be sent so, or has no such slot, stays as it is."""
        found = []
        for row, plain, slot, word in zip(
            unpadded(inputs),
            self.spelling.texts(clean),
            slots.tolist(),
            words.tolist(),
            strict=True,
        ):
            new, others = _beside(self._there(plain, row), slot, word)
            stay = torch.randperm(len(others), generator=generator)[: self.count - 1].tolist()
            text = (
                typed(plain, [new, *(others[k] for k in sorted(stay))]) if new.fits(plain) else ""
            )
            found.append(self.spelling.ids(text) or row.tolist())
        return _stacked(found, clean)

    def drawn(self, clean: Tensor, generator: Generator) -> Tensor:
        """One error after another, each drawn again where its text could not be sent."""
        found, free = clean, self.writable(clean)
        for _ in range(self.count):
            before = found
            for _ in range(REDRAWN):
                slots = drawn_slots(free, 1, generator)[:, 0]
                words = self.draw(clean, generator)
                tried = self.put(before, clean, slots, words, generator)
                waiting = _same(found, before)
                found = torch.where(waiting[:, None], *as_wide(tried, found))
                if not waiting.any():
                    break
        return found

    def gains(self, iterate: Tensor, clean: Tensor, slopes: Slopes, generator: Generator) -> Tensor:
        """Of the tokens that an error makes, each in the place of the token that it replaces, or of
        the last one replaced; of errors drawn evenly, beside all that there are."""
        free, alphabet = self.writable(clean), self.words()
        made: list[tuple[int, ...]] = []
        for row, (ids, plain) in enumerate(
            zip(unpadded(iterate), self.spelling.texts(clean), strict=True)
        ):
            slots = drawn_slots(free[row : row + 1], LOOKED_AT, generator)[0].tolist()
            drawn = torch.randint(len(alphabet), (LOOKED_AT,), generator=generator).tolist()
            there = self._there(plain, ids)
            for slot, word in dict.fromkeys(zip(slots, drawn, strict=True)):
                new, others = _beside(there, slot, alphabet[word])
                spelled = self.spelling.ids(typed(plain, [new, *others])) or []
                made += [(row, slot, word, *each) for each in _respelled(ids.tolist(), spelled)]
        gain = torch.full((*free.shape, len(alphabet)), -torch.inf, device=iterate.device)
        if made:
            row, slot, word, place, piece = torch.tensor(made, device=iterate.device).T
            pieces, index = piece.unique(return_inverse=True)
            gain[row, slot, word] = 0.0
            each = slopes(pieces)[row, place, index].to(gain)
            gain.index_put_((row, slot, word), each, accumulate=True)
        return gain

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        """What is outside keeps its first errors, as many as there may be, if it can be sent so;
        else it is the clean prompt."""
        inside = self.contains(inputs, clean).tolist()
        rows = zip(
            inside, unpadded(inputs), unpadded(clean), self.spelling.texts(clean), strict=True
        )
        found = []
        for ok, given, before, plain in rows:
            ids = given.tolist() if ok else self.spelling.ids(self._first(plain, given))
            found.append(ids or before.tolist())
        return _stacked(found, clean)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        rows = zip(unpadded(inputs), unpadded(clean), self.spelling.texts(clean), strict=True)
        inside = [
            row.equal(before) or self._inside(row.tolist(), plain) for row, before, plain in rows
        ]
        ends = lengths(inputs) == (inputs != PAD).sum(1)
        return torch.tensor(inside, device=inputs.device) & ends

    def members(self, clean: Tensor) -> int:
        """Errors after errors, each in any place: one text may come in several ways."""
        (text,), found = self.spelling.texts(clean), 1
        for size in range(len(text) + self.count - 1, len(text) - 1, -1):
            found = 1 + found * ((2 * size + 1) * len(self.words()) + max(2 * size - 1, 0))
        return found

    def listed(self, clean: Tensor) -> Iterator[Tensor]:
        yield clean
        texts = newest = set(self.spelling.texts(clean))
        for _ in range(self.count):
            made = {
                typed(text, [typo])
                for text in newest
                for typo in possible(text, self.spelling.alphabet)
            }
            newest = made - texts
            texts |= newest
            for ids in filter(None, map(self.spelling.ids, sorted(newest))):
                yield _stacked([ids], clean)

    def largest(self, clean: Tensor) -> Tensor:
        """Prompts such that none of the budget is longer (:meth:`Spelling.room`)."""
        rows = []
        for row, text in zip(unpadded(clean), self.spelling.texts(clean), strict=True):
            room = min(self.spelling.room(text, self.count), self.domain.longest - len(row))
            rows.append(row.tolist() + [int(row[-1])] * room)
        return _stacked(rows, clean)

    def _there(self, plain: str, ids: Tensor) -> list[Typo]:
        """The errors of a prompt."""
        return typos(plain, self.spelling.text(ids.tolist()))

    def _first(self, plain: str, ids: Tensor) -> str:
        """The clean text with the first errors of a prompt that can be typed."""
        alphabet = self.spelling.alphabet
        can = [typo for typo in self._there(plain, ids) if typo.character in alphabet]
        return typed(plain, can[: self.count])

    def _inside(self, ids: list[int], plain: str) -> bool:
        text = self.spelling.text(ids)
        known = set(text) <= {*self.spelling.alphabet, *plain}
        return self.spelling.ids(text) == ids and known and len(typos(plain, text)) <= self.count


def _beside(there: list[Typo], slot: int, word: int) -> tuple[Typo, list[Typo]]:
    """The error of a slot, and those that are there and can stay beside it."""
    place, kind = divmod(slot, len(Kind))
    writes = kind in (Kind.INSERT, Kind.REPLACE)
    new = Typo(place, Kind(kind), chr(word) if writes else "")
    return new, [typo for typo in there if not typo.clashes(new)]


def _respelled(before: list[int], after: list[int]) -> list[tuple[int, int]]:
    """Tokens of ``after`` that are new, each with the place of ``before`` where it counts."""
    first = common(before, after)
    last = common(before[first:][::-1], after[first:][::-1])
    end = min(max(first, len(before) - last - 1), len(before) - 1)
    return [(min(place, end), after[place]) for place in range(first, len(after) - last)]


def _stacked(rows: list[list[int]], like: Tensor) -> Tensor:
    """Rows of ids (B, L), padded."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows]).to(like)


def _same(one: Tensor, other: Tensor) -> Tensor:
    """(B,) bool: rows that are equal but for padding."""
    one, other = as_wide(one, other)
    return (one == other).all(1)
