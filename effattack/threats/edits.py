"""What an attacker of text may change: tokens at one end, or some anywhere.

A threat of tokens is bound to the domain of a victim (:meth:`Threat.on`), which says how long a
prompt may be and which ids can be written. Characters change in :mod:`.characters`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import combinations, product
from math import comb
from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.budgets import check_count
from effattack.domains.tokens import PAD, Tokens, as_wide, lengths, padded
from effattack.threats.base import Threat

REDRAWN = 16
"""How often random tokens are drawn again where no user could send them."""

Slopes = Callable[[Tensor], Tensor]
"""Ids (n,) -> (B, k, n): what each in an :meth:`Edits.editable` place would gain, linearised."""


class Edits(Threat):
    """Prompts with a few changes, each of which writes a word into a slot.

    Of tokens, a slot is a place and a word is an id; :class:`.characters.Characters` has others.
    """

    kind: ClassVar[str] = "tokens"
    domain: Tokens

    @abstractmethod
    def editable(self, clean: Tensor) -> Tensor:
        """(B, k): places in :meth:`largest` of the prompts where tokens may change."""

    @abstractmethod
    def writable(self, clean: Tensor) -> Tensor:
        """(B, slots) bool: which slots there are; of tokens, one per :meth:`editable` place."""

    @abstractmethod
    def put(
        self, inputs: Tensor, clean: Tensor, slots: Tensor, words: Tensor, generator: Generator
    ) -> Tensor:
        """Prompts with one more word each, as the budget allows.

        Args:
            inputs: (B, L), of the budget.
            clean: what they were made from.
            slots: (B,), one of each that is :meth:`writable`.
            words: (B,), of :meth:`words`.
            generator: of what must give way, where nothing more may change.
        """

    def placed(self, clean: Tensor, generator: Generator) -> Edits:
        return self

    def rows(self, index: Tensor) -> Edits:
        return self

    @abstractmethod
    def drawn(self, clean: Tensor, generator: Generator) -> Tensor:
        """As many changes as the budget has, each to a token drawn evenly."""

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        """Random tokens, drawn again where their text would have other ids."""
        found = self.drawn(clean, generator)
        for _ in range(REDRAWN):
            inside = self.contains(found, clean)[:, None]
            if inside.all():
                break
            found = torch.where(inside, *as_wide(found, self.drawn(clean, generator)))
        return self.on_grid(found, clean)

    def every(self, clean: Tensor, at_once: int) -> Iterator[Tensor]:
        waiting: list[Tensor] = []
        for found in self.listed(clean[:, : int(lengths(clean)[0])]):
            waiting.append(found)
            if len(waiting) == at_once:
                yield from self._sendable(waiting, clean)
                waiting = []
        if waiting:
            yield from self._sendable(waiting, clean)

    @abstractmethod
    def listed(self, clean: Tensor) -> Iterator[Tensor]:
        """All prompts (1, L) that the budget makes of one without padding, ids of all kinds."""

    def words(self) -> list[int]:
        """What an attacker can write: ids."""
        return self.domain.allowed().nonzero()[:, 0].tolist()

    def draw(self, clean: Tensor, generator: Generator) -> Tensor:
        """(B,) of the words, one for each prompt, drawn evenly."""
        return self.domain.draw((len(clean),), generator)

    def gains(self, iterate: Tensor, clean: Tensor, slopes: Slopes, generator: Generator) -> Tensor:
        """(B, slots, words): linearised gain of each word in each slot.

        -inf where nothing may be written, the word stands already, or nobody looked.

        Args:
            iterate: (B, L), prompts of the budget.
            clean: what they were made from.
            slopes: at the iterates.
            generator: of what is looked at, where not all is.
        """
        words = torch.tensor(self.words(), device=clean.device)
        places = self.editable(clean).clamp_max(iterate.shape[1] - 1)
        there = iterate.gather(1, places)[:, :, None] == words
        closed = ~self.writable(clean)[:, :, None]
        return slopes(words).masked_fill(closed | there, -torch.inf)

    def _sendable(self, found: list[Tensor], clean: Tensor) -> Iterator[Tensor]:
        batch = self.domain.join(found)
        inside = self.contains(batch, clean.expand(len(batch), -1))
        if inside.any():
            yield batch[inside]

    def can_be_sent(self, inputs: Tensor, clean: Tensor) -> Tensor:
        """(B,) bool: prompts whose text has their ids; the clean ones are taken as they are."""
        given, before = as_wide(inputs, clean)
        return self.domain.stable(inputs) | (given == before).all(1)

    def may_write(self, ids: Tensor) -> Tensor:
        """Same shape, bool: tokens that an attacker can write; padding is none."""
        allowed = self.domain.allowed().to(ids.device)
        return allowed[ids.clamp_min(0)] & (ids != PAD)


class Added(Edits):
    """At most ``count`` tokens more, all at one end of the prompt; ``eps`` is the count.

    A prompt gets no longer than the victim takes. The ids may be any that can be written.

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = check_count(count, f"the length of a {self.name}")
        self.eps = float(self.count)

    def drawn(self, clean: Tensor, generator: Generator) -> Tensor:
        words = self.domain.draw((len(clean), self.count), generator).to(clean)
        return self._joined(clean, words, self.room(clean))

    def writable(self, clean: Tensor) -> Tensor:
        return torch.arange(self.count, device=clean.device) < self.room(clean)[:, None]

    def put(
        self, inputs: Tensor, clean: Tensor, slots: Tensor, words: Tensor, generator: Generator
    ) -> Tensor:
        """Where fewer words were added than there are slots before this one, it is the next."""
        written, used = self._added(inputs, clean)
        slots = slots.minimum(used)
        written = written.scatter(1, slots[:, None], words[:, None])
        return self._joined(clean, written, used.maximum(slots + 1).minimum(self.room(clean)))

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        words, used = self._added(inputs, clean)
        words = torch.where(self.may_write(words), words, self._any_word)
        found = self._joined(clean, words, used)
        found, before = as_wide(found, clean)
        return _trimmed(torch.where(self.contains(found, clean)[:, None], found, before))

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        words, used = self._added(inputs, clean)
        again, given = as_wide(self._joined(clean, words, used), self.domain.snap(inputs))
        behind = torch.arange(self.count, device=clean.device) >= used[:, None]
        written = (self.may_write(words) | behind).all(1)
        return (again == given).all(1) & written & self.can_be_sent(inputs, clean)

    def members(self, clean: Tensor) -> int:
        words, room = len(self.words()), int(self.room(clean)[0])
        return sum(words**used for used in range(room + 1))

    def listed(self, clean: Tensor) -> Iterator[Tensor]:
        for used in range(int(self.room(clean)[0]) + 1):
            fill = [self._any_word] * (self.count - used)
            for words in product(self.words(), repeat=used):
                row = torch.tensor([[*words, *fill]], device=clean.device)
                yield self._joined(clean, row, torch.tensor([used], device=clean.device))

    def largest(self, clean: Tensor) -> Tensor:
        """As many tokens more as there is room for."""
        words = torch.full((len(clean), self.count), self._any_word).to(clean)
        return self._joined(clean, words, self.room(clean))

    def added(self, clean: Tensor, words: Tensor) -> Tensor:
        """Clean prompts with words (B, k) more, padded behind; of those, as many as there is room
        for."""
        used = lengths(words).minimum(self.room(clean))
        words = padded(words[:, : self.count], self.count).clamp_min(0)
        return self._joined(clean, words, used)

    def room(self, clean: Tensor) -> Tensor:
        """(B,): how many tokens each prompt may gain."""
        return (self.domain.longest - lengths(clean)).clamp(0, self.count)

    @property
    def _any_word(self) -> int:
        return int(self.domain.allowed().long().argmax())

    @abstractmethod
    def _joined(self, clean: Tensor, words: Tensor, used: Tensor) -> Tensor:
        """Clean prompts with the first ``used`` of their (B, count) words added."""

    def _added(self, inputs: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The (B, count) words that inputs have more than clean prompts, and how many are used."""
        used = (lengths(inputs) - lengths(clean)).clamp_min(0).minimum(self.room(clean))
        wide = padded(inputs, inputs.shape[1] + clean.shape[1] + self.count)
        return wide.gather(1, self.editable(clean)), used


class Suffix(Added):
    """At most ``count`` tokens more behind the last one."""

    name = "suffix"

    def editable(self, clean: Tensor) -> Tensor:
        return lengths(clean)[:, None] + torch.arange(self.count, device=clean.device)

    def _joined(self, clean: Tensor, words: Tensor, used: Tensor) -> Tensor:
        wide = padded(clean, clean.shape[1] + self.count)
        behind = torch.arange(self.count, device=clean.device) >= used[:, None]
        return _trimmed(wide.scatter(1, self.editable(clean), words.masked_fill(behind, PAD)))


class Prefix(Added):
    """At most ``count`` tokens more before the first one."""

    name = "prefix"

    def editable(self, clean: Tensor) -> Tensor:
        return torch.arange(self.count, device=clean.device).repeat(len(clean), 1)

    def _joined(self, clean: Tensor, words: Tensor, used: Tensor) -> Tensor:
        both = torch.cat([words, padded(clean, clean.shape[1] + self.count)], dim=1)
        place = torch.arange(clean.shape[1] + self.count, device=clean.device)
        taken = torch.where(place < used[:, None], place, place + self.count - used[:, None])
        return _trimmed(both.gather(1, taken))


class Swaps(Edits):
    """At most ``count`` tokens become others, wherever they stand; ``eps`` is the count.

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    name = "swap"

    def __init__(self, count: int) -> None:
        self.count = check_count(count, "the count of swaps")
        self.eps = float(self.count)

    def drawn(self, clean: Tensor, generator: Generator) -> Tensor:
        order = torch.rand(clean.shape, generator=generator).to(clean.device)
        order = order.masked_fill(clean == PAD, -1.0)
        chosen = order.argsort(1, descending=True).argsort(1) < self.count
        words = self.domain.draw(clean.shape, generator).to(clean)
        return torch.where(chosen & (clean != PAD), words, clean)

    def writable(self, clean: Tensor) -> Tensor:
        return clean != PAD

    def put(
        self, inputs: Tensor, clean: Tensor, slots: Tensor, words: Tensor, generator: Generator
    ) -> Tensor:
        """Once all swaps are used, others are taken back, drawn evenly."""
        found, before = as_wide(inputs, clean)
        found = found.scatter(1, slots[:, None], words[:, None])
        order = torch.rand(found.shape, generator=generator).to(found.device)
        order = order.masked_fill(found == before, -1.0).scatter(1, slots[:, None], 2.0)
        stays = order.argsort(1, descending=True).argsort(1) < self.count
        return torch.where(stays, found, before)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        width = clean.shape[1]
        given = padded(inputs[:, :width], width)
        swapped = (given != clean) & (clean != PAD) & self.may_write(given)
        swapped &= swapped.cumsum(1) <= self.count
        found = torch.where(swapped, given, clean)
        return torch.where(self.contains(found, clean)[:, None], found, clean)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        given, before = as_wide(inputs, clean)
        changed = given != before
        swapped = (self.may_write(given) & (before != PAD)) | ~changed
        few = changed.sum(1) <= self.count
        return swapped.all(1) & few & self.can_be_sent(inputs, clean)

    def members(self, clean: Tensor) -> int:
        words, length = len(self.words()), int(lengths(clean)[0])
        return sum(comb(length, used) * words**used for used in range(self.count + 1))

    def listed(self, clean: Tensor) -> Iterator[Tensor]:
        for used in range(min(self.count, clean.shape[1]) + 1):
            for places in combinations(range(clean.shape[1]), used):
                for words in product(self.words(), repeat=used):
                    found = clean.clone()
                    found[0, list(places)] = torch.tensor(words, dtype=clean.dtype).to(clean)
                    yield found

    def editable(self, clean: Tensor) -> Tensor:
        return torch.arange(clean.shape[1], device=clean.device).repeat(len(clean), 1)


def drawn_slots(free: Tensor, count: int, generator: Generator) -> Tensor:
    """(B, slots) bool -> (B, count): slots that are free, drawn evenly, one as often as another."""
    places = torch.rand(len(free), count, generator=generator).to(free.device)
    drawn = (places * free.sum(1, keepdim=True)).long()
    order = (~free).byte().argsort(dim=1, stable=True)
    return order.gather(1, drawn)


def _trimmed(ids: Tensor) -> Tensor:
    """Without columns that only pad."""
    return ids[:, : max(int(lengths(ids).max()), 1)]
