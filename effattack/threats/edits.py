"""What an attacker of text may change: tokens at one end, or some anywhere.

A threat of tokens is bound to the domain of a victim (:meth:`Threat.on`), which says how long a
prompt may be and which ids can be written. ``chars:k`` waits for a victim with a tokenizer.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Generator, Tensor

from effattack.budgets import check_count
from effattack.domains.tokens import PAD, as_wide, lengths, padded
from effattack.threats.base import Threat


class Added(Threat):
    """At most ``count`` tokens more, all at one end of the prompt; ``eps`` is the count.

    A prompt gets no longer than the victim takes. The ids may be any that can be written.

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    kind = "tokens"

    def __init__(self, count: int) -> None:
        self.count = check_count(count, f"the length of a {self.name}", "tokens")
        self.eps = float(self.count)

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        words = self.tokens.draw((len(clean), self.count), generator).to(clean)
        return self._joined(clean, words, self.room(clean))

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        words, used = self._added(inputs, clean)
        allowed = self.tokens.allowed().to(clean.device)
        words = torch.where(allowed[words.clamp_min(0)], words, allowed.long().argmax())
        found = self._joined(clean, words, used)
        inside = self.contains(found, clean)[:, None]
        return torch.where(inside, found, padded(clean, max(found.shape[1], clean.shape[1])))

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        words, used = self._added(inputs, clean)
        again, given = as_wide(self._joined(clean, words, used), self.tokens.snap(inputs))
        behind = torch.arange(self.count, device=clean.device) >= used[:, None]
        allowed = self.tokens.allowed().to(clean.device)[words.clamp_min(0)] | behind
        return (again == given).all(1) & allowed.all(1) & self.tokens.stable(inputs)

    def largest(self, clean: Tensor) -> Tensor:
        """As many tokens more as there is room for."""
        word = int(self.tokens.allowed().long().argmax())
        words = torch.full((len(clean), self.count), word).to(clean)
        return self._joined(clean, words, self.room(clean))

    def room(self, clean: Tensor) -> Tensor:
        """(B,): how many tokens each prompt may gain."""
        return (self.tokens.longest - lengths(clean)).clamp(0, self.count)

    @abstractmethod
    def editable(self, clean: Tensor) -> Tensor:
        """(B, count): where the added tokens stand; the first :meth:`room` of each row are there.

        In :meth:`largest` of the clean prompts.
        """

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


class Swaps(Threat):
    """At most ``count`` tokens become others, wherever they stand; ``eps`` is the count.

    Raises:
        UsageError: if count is not a whole number of at least 1.
    """

    name, kind = "swap", "tokens"

    def __init__(self, count: int) -> None:
        self.count = check_count(count, "the count of swaps", "tokens")
        self.eps = float(self.count)

    def start(self, clean: Tensor, generator: Generator) -> Tensor:
        order = torch.rand(clean.shape, generator=generator).to(clean.device)
        order = order.masked_fill(clean == PAD, -1.0)
        chosen = order.argsort(1, descending=True).argsort(1) < self.count
        words = self.tokens.draw(clean.shape, generator).to(clean)
        return self.on_grid(torch.where(chosen & (clean != PAD), words, clean), clean)

    def on_grid(self, inputs: Tensor, clean: Tensor) -> Tensor:
        width = clean.shape[1]
        given = padded(inputs[:, :width], width)
        allowed = self.tokens.allowed().to(clean.device)[given.clamp_min(0)]
        swapped = (given != clean) & (given != PAD) & (clean != PAD) & allowed
        swapped &= swapped.cumsum(1) <= self.count
        found = torch.where(swapped, given, clean)
        return torch.where(self.contains(found, clean)[:, None], found, clean)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        given, before = as_wide(inputs, clean)
        changed = given != before
        allowed = self.tokens.allowed().to(clean.device)[given.clamp_min(0)]
        same_length = ((given == PAD) == (before == PAD)).all(1)
        fine = (allowed | ~changed).all(1) & (changed.sum(1) <= self.count)
        return same_length & fine & self.tokens.stable(inputs)

    def editable(self, clean: Tensor) -> Tensor:
        """(B, L): every place of the prompts."""
        return torch.arange(clean.shape[1], device=clean.device).repeat(len(clean), 1)


def _trimmed(ids: Tensor) -> Tensor:
    """Without columns that only pad."""
    return ids[:, : max(int(lengths(ids).max()), 1)]
