"""What an attacker of a graph may change: a few edges more around the entity asked about."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from math import perm
from typing import ClassVar, Self

import torch
from torch import Generator, Tensor

from effattack.domains.base import Domain
from effattack.domains.graph import Graph
from effattack.domains.tokens import PAD, lengths, padded
from effattack.errors import UsageError
from effattack.threats.edits import Prefix, Slopes, drawn_slots


class NewEdges(Prefix):
    """At most ``count`` edges more, at distance 1 or 2 from the entity asked about.

    Each joins that entity, or one of its neighbours in the clean query, to another; relation types
    are kept (:class:`~effattack.domains.graph.Graph`), and no edge exists already in the clean
    query; a fact that its cap has cut off may come in again. New edges stand before the others;
    where those fill the cap of the domain, the oldest make room. What an edge leads to brings no
    edges of its own.

    Random ones are as often at distance 1 as at 2, where there is a neighbour, and else drawn
    evenly.

    Raises:
        UsageError: if count is no whole number of at least 1, or more than the cap of the domain.
    """

    kind: ClassVar[str] = "graph"
    name = "edges"
    domain: Graph

    def on(self, domain: Domain) -> Self:
        bound = super().on(domain)
        if self.count > bound.domain.cap:
            raise UsageError(
                f"{self}: at most {bound.domain.cap} edges are at hand for one query: write "
                f"edges:{bound.domain.cap} or fewer"
            )
        return bound

    def editable(self, clean: Tensor) -> Tensor:
        return 1 + super().editable(clean)

    def room(self, clean: Tensor) -> Tensor:
        return torch.full((len(clean),), self.count, device=clean.device)

    def draw(self, clean: Tensor, generator: Generator) -> Tensor:
        own = self.domain.reach(clean).hops == 1
        neighbour = clean.gather(1, drawn_slots(own, 1, generator))[:, 0] % self._entities
        behind = (torch.rand(len(clean), generator=generator) < 0.5).to(clean.device)
        near = torch.where(behind & own.any(1), neighbour, self.domain.asked(clean)[0])
        return self._word(near, drawn_slots(self._free(near, clean), 1, generator))[:, 0]

    def drawn(self, clean: Tensor, generator: Generator) -> Tensor:
        words = torch.stack([self.draw(clean, generator) for _ in range(self.count)], 1)
        return self._joined(clean, words, self._may_join(words, clean).cumprod(1).sum(1))

    def gains(self, iterate: Tensor, clean: Tensor, slopes: Slopes, generator: Generator) -> Tensor:
        """Of edges at the entity asked about: its gradient says nothing of those behind others,
        which only random draws name."""
        gain = super().gains(iterate, clean, slopes, generator)
        near = self.domain.edges(torch.tensor(self.words(), device=clean.device)).near
        elsewhere = near != self.domain.asked(clean)[0][:, None]
        return gain.masked_fill(elsewhere[:, None], -torch.inf)

    def contains(self, inputs: Tensor, clean: Tensor) -> Tensor:
        words, used = self._added(inputs, clean)
        behind = torch.arange(self.count, device=clean.device) >= used[:, None]
        return super().contains(inputs, clean) & (self._may_join(words, clean) | behind).all(1)

    def members(self, clean: Tensor) -> int:
        choices = len(self._choices(clean))
        return sum(perm(choices, used) for used in range(self.count + 1))

    def listed(self, clean: Tensor) -> Iterator[Tensor]:
        for used in range(self.count + 1):
            fill = [0] * (self.count - used)
            for words in permutations(self._choices(clean), used):
                row = torch.tensor([[*words, *fill]], device=clean.device)
                yield self._joined(clean, row, torch.tensor([used], device=clean.device))

    def largest(self, clean: Tensor) -> Tensor:
        """As many edges more as may be, at distance 2 where there are any: they cost most."""
        own = self.domain.reach(clean).hops == 1
        head = self.domain.asked(clean)[0][:, None]
        around = torch.where(own, clean % self._entities, head)
        order = own.byte().argsort(dim=1, descending=True, stable=True)
        found = clean[:, :1]
        for near in torch.cat([around.gather(1, order), head], 1).T:
            free = self._free(near, clean)
            first = free.byte().argsort(dim=1, descending=True, stable=True)[:, : self.count]
            words = self._word(near, first).where(free.gather(1, first), PAD)
            found = self.domain.distinct(torch.cat([found, words], 1))
            if (found[:, 1:] != PAD).sum(1).amin() >= self.count:
                break
        return self._joined(clean, found[:, 1:], lengths(found[:, 1:]).minimum(self.room(clean)))

    def _joined(self, clean: Tensor, words: Tensor, used: Tensor) -> Tensor:
        words = padded(words, max(self.count, words.shape[1]))[:, : self.count]
        behind = super()._joined(clean[:, 1:], words, used)
        return torch.cat([clean[:, :1], behind], 1)[:, : self.domain.longest]

    def _added(self, inputs: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        """The first edges of inputs (B, count), and how many of them no clean query has."""
        first = padded(inputs, inputs.shape[1] + self.count)[:, 1 : 1 + self.count]
        there = (first[:, :, None] == clean[:, None, 1:]).any(2) | (first == PAD)
        return first, (~there).cumprod(1).sum(1)

    def _may_join(self, words: Tensor, clean: Tensor) -> Tensor:
        """(B, k) -> (B, k) bool: new edges of the right types around the entity asked about."""
        head = self.domain.asked(clean)[0][:, None]
        own = self.domain.reach(clean).hops == 1
        near, _, far = self.domain.edges(words)
        ends = torch.where(own, clean % self._entities, head)
        around = (near[:, :, None] == ends[:, None]).any(2)
        known = torch.cat([clean, self.domain.facing(clean)], 1)[:, None]
        edges = clean != PAD
        edges[:, 0] = False
        exists = ((words[:, :, None] == known) & edges.repeat(1, 2)[:, None]).any(2)
        return self.may_write(words) & around & (far != head) & ~exists

    def _free(self, near: Tensor, clean: Tensor) -> Tensor:
        """(B, steps · entities) bool: which of the edges from ``near`` (B,), the entity asked about
        or a neighbour, may be added."""
        size = self.domain.steps * self._entities
        far = torch.arange(size, device=clean.device) % self._entities
        typed = self.domain.allowed().to(clean.device).view(-1, size)[near]
        there = clean.where(self.domain.reach(clean).hops > 0, PAD)
        there = torch.cat([there, self.domain.facing(there).where(there != PAD, PAD)], 1)
        there = there - near[:, None] * size
        there = there.where((there >= 0) & (there < size), size)
        new = torch.ones(len(clean), size + 1, dtype=torch.bool, device=clean.device)
        new = new.scatter(1, there, False)[:, :size]
        return typed & new & (far != self.domain.asked(clean)[0][:, None])

    def _choices(self, clean: Tensor) -> list[int]:
        """All edges that may be added to one query (1, L)."""
        words = torch.tensor([self.words()], device=clean.device)
        return words[self._may_join(words, clean)].tolist()

    def _word(self, near: Tensor, rest: Tensor) -> Tensor:
        return near[:, None] * self.domain.steps * self._entities + rest

    @property
    def _any_word(self) -> int:
        """No edge may be added to every query."""
        return 0

    @property
    def _entities(self) -> int:
        return len(self.domain.entities)
