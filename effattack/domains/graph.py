"""Queries to a graph, each with the neighbourhood that it is answered from, as rows of ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from effattack.domains.base import Domain
from effattack.domains.tokens import PAD, TOLD, Tokens
from effattack.errors import UsageError

Fact = tuple[int, int, int]
"""Head, relation, tail: numbers of an entity, a relation, an entity."""
MOST = 2**27
"""Edges that a graph may have room for: which of them keep its types is listed."""


class Edges(NamedTuple):
    """Edges as they are seen from their nearer end, (B, L) each."""

    near: Tensor
    step: Tensor
    """From near to far: relation r, or relations + r against its direction."""
    far: Tensor


class Reach(NamedTuple):
    """How far from the query the edges of its neighbourhood are, (B, L) each."""

    hops: Tensor
    """1 at the entity asked about, 2 at one of its neighbours; 0 of what is neither."""
    links: Tensor
    """Of an edge at distance 2, the place of the first edge that leads to its nearer end."""


class Graph(Tokens):
    """Queries (B, L): place 0 holds what is asked, (head, relation, ?); behind it stand edges.

    The edges are those of distance at most 2 that are at hand, the newest first, padded with -1. A
    query against a relation's direction, (?, relation, tail), asks the tail by the step
    ``relations + relation``. An edge (near, step, far) has the id
    (near · steps + step) · entities + far, and stands once, from whichever end.

    Args:
        facts: triples of names that are known: an attacker's edges join only entities that stand at
            the two ends of that relation in one of them (relation types are kept).
        cap: most edges of one neighbourhood; of a hub, the newest are at hand.
        entities: names, in the order of their numbers; None: those of the facts, sorted.
        relations: likewise.

    Raises:
        UsageError: for a cap below 1, no facts, facts of unknown names, fewer than two entities, or
            more than ``MOST`` edges that could be.
    """

    kind, noun, nouns = "graph", "query", "queries"
    _units = "places"
    _make = "build them with domain.query(head, relation, edges)"
    _known = "ids are those of this graph's entities and relations"

    def __init__(
        self,
        facts: Iterable[tuple[str, str, str]],
        cap: int,
        *,
        entities: Sequence[str] | None = None,
        relations: Sequence[str] | None = None,
    ) -> None:
        facts = [*facts]
        if not facts:
            raise UsageError("Graph: there are no facts: give triples (head, relation, tail)")
        if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
            raise UsageError(f"Graph: cap = {cap!r}: give a whole number of at least 1")
        found = sorted({end for head, _, tail in facts for end in (head, tail)})
        self.entities = tuple(found if entities is None else entities)
        self.relations = tuple(sorted({r for _, r, _ in facts}) if relations is None else relations)
        self.steps, self.cap = 2 * len(self.relations), cap
        self._refuse_size()
        self._numbers = {name: n for n, name in enumerate(self.entities)}
        self._kinds = {name: n for n, name in enumerate(self.relations)}
        self.facts: tuple[Fact, ...] = tuple(self.numbered(fact) for fact in facts)
        super().__init__(len(self.entities) ** 2 * self.steps, 1 + cap)
        self._allowed = self._kept_types()

    def numbered(self, fact: tuple[str, str, str]) -> Fact:
        """A triple of names as numbers.

        Raises:
            UsageError: for an entity or a relation outside the graph.
        """
        head, relation, tail = fact
        return self._entity(head), self._relation(relation), self._entity(tail)

    def query(
        self,
        head: str,
        relation: str,
        edges: Iterable[tuple[str, str, str]] = (),
        *,
        against: bool = False,
    ) -> Tensor:
        """(1, L): what ``relation`` leads to from ``head``, with edges around it, newest first.

        An entity without edges is asked about alone. What is farther than two edges is left out.

        Args:
            head: name of the entity asked about.
            relation: name.
            edges: triples of names.
            against: ask for what leads to ``head`` by the relation.

        Raises:
            UsageError: for an entity or a relation outside the graph, or an edge that stands twice.
        """
        asked = self._entity(head), self._relation(relation) + against * len(self.relations)
        known: dict[int, list[Fact]] = {}
        for edge in edges:
            fact = self.numbered(edge)
            if fact in known.get(fact[0], []):
                raise UsageError(f"the edge {edge} stands twice: give each once")
            for end in {fact[0], fact[2]}:
                known.setdefault(end, []).append(fact)
        return torch.tensor([self.gathered(*asked, lambda end: known.get(end, []))])

    def gathered(
        self, head: int, step: int, touching: Callable[[int], Iterable[Fact]]
    ) -> list[int]:
        """The row of a query: its own edges first, then those of its neighbours, up to the cap.

        Args:
            head: entity asked about.
            step: what is asked.
            touching: the facts at an entity, the newest first.
        """
        found: dict[int, int] = {}

        def read(end: int) -> None:
            for fact in touching(end):
                if len(found) == self.cap:
                    return
                edge = self._seen_from(end, fact)
                if fact[0] != fact[2]:
                    found.setdefault(min(edge, self.facing(edge)), edge)

        read(head)
        for edge in list(found.values()):
            read(edge % len(self.entities))
        return [head * self.steps + step, *found.values()]

    def check(self, inputs: Tensor) -> None:
        super().check(inputs)
        ids = inputs.long()
        broken = {
            "asks for an entity or a relation outside the graph": (
                ids[:, 0] >= len(self.entities) * self.steps
            ),
            "has an edge that exists already: give each once": self.repeated(ids).any(1),
        }
        for what, rows in broken.items():
            if rows.any():
                raise UsageError(f"{self.noun} {int(rows.nonzero()[0])} {what}")

    def asked(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) -> entities and steps asked about, (B,) each."""
        return ids[:, 0] // self.steps, ids[:, 0] % self.steps

    def edges(self, ids: Any) -> Edges:
        """What edges join; of padding and of place 0 nothing that means anything."""
        rest, far = ids // len(self.entities), ids % len(self.entities)
        return Edges(rest // self.steps, rest % self.steps, far)

    def back(self, step: Any) -> Any:
        """The step that leads back."""
        return (step + len(self.relations)) % self.steps

    def facing(self, ids: Any) -> Any:
        """The ids of the same edges, seen from their other ends."""
        near, step, far = self.edges(ids)
        return (far * self.steps + self.back(step)) * len(self.entities) + near

    def reach(self, ids: Tensor) -> Reach:
        """How far each edge is from the query: an edge farther than 2 is none of its neighbours."""
        near, _, far = self.edges(ids)
        edge = ids != PAD
        edge[:, 0] = False
        own = edge & (near == self.asked(ids)[0][:, None])
        leads = (near[:, :, None] == far[:, None, :]) & own[:, None, :]
        behind = edge & ~own & leads.any(2)
        return Reach(own.long() + 2 * behind.long(), leads.byte().argmax(2))

    def repeated(self, ids: Tensor) -> Tensor:
        """(B, L) bool: edges that stand before in the same row, from whichever end."""
        same = torch.minimum(ids, self.facing(ids))
        same[:, 0] = PAD
        alike = (same[:, :, None] == same[:, None, :]).tril(-1).any(2)
        return alike & (same != PAD)

    def distinct(self, ids: Tensor) -> Tensor:
        """Each edge where it stands first, and no gaps."""
        kept = torch.where(self.repeated(ids), PAD, ids)
        return kept.gather(1, (kept == PAD).byte().argsort(dim=1, stable=True))

    def snap(self, inputs: Tensor) -> Tensor:
        """Each edge once, nothing behind the first padding, and no more edges than the cap."""
        inside = torch.where((inputs == PAD).cumsum(1) == 0, inputs, PAD)
        return self.distinct(inside)[:, : self.longest]

    def stretched(self, inputs: Tensor) -> Tensor:
        """Every query with more edges of its own entity behind the others, up to the cap."""
        count, head = 2 * self.cap, self.asked(inputs)[0]
        other = torch.arange(count, device=inputs.device)
        far = (head[:, None] + 1 + other % (len(self.entities) - 1)) % len(self.entities)
        step = (other // (len(self.entities) - 1)) % self.steps
        more = (head[:, None] * self.steps + step) * len(self.entities) + far
        return self.distinct(torch.cat([inputs, more], 1))[:, : self.longest]

    def example(self, count: int) -> Tensor:
        """The first entity with a few edges, asked for its first step."""
        return self.stretched(torch.zeros(count, 1, dtype=torch.long))[:, :8]

    def disturbed(self, inputs: Tensor, generator: Generator) -> Tensor:
        """Half of the edges are others of the entity that is asked about."""
        size, entities = tuple(inputs.shape), len(self.entities)
        head = self.asked(inputs)[0][:, None]
        step = torch.randint(self.steps, size, generator=generator).to(inputs)
        far = (head + torch.randint(1, entities, size, generator=generator).to(inputs)) % entities
        other = (torch.rand(size, generator=generator) < 0.5).to(inputs.device) & (inputs != PAD)
        other[:, 0] = False
        noise = (head * self.steps + step) * entities + far
        return self.snap(torch.where(other, noise, inputs))

    def kept(self, inputs: Tensor, clean: Tensor) -> None:
        """An answer is about the whole query."""

    def tokens(self, inputs: Tensor) -> Tensor:
        return Domain.tokens(self, inputs)

    def describe(self) -> dict[str, Any]:
        """With the names of entities and relations, where those are not too many to store."""
        found = {**super().describe(), "cap": self.cap}
        if len(self.entities) + len(self.relations) <= TOLD:
            found |= {"entities": [*self.entities], "relations": [*self.relations]}
        return found

    def allowed(self) -> Tensor:
        """(vocabulary,) bool: edges between two entities that stand at the ends of that relation in
        some fact."""
        return self._allowed

    def _refuse_size(self) -> None:
        entities, edges = len(self.entities), len(self.entities) ** 2 * self.steps
        if entities < 2:
            raise UsageError("Graph: one entity has no edges: give facts of at least two")
        if edges > MOST:
            raise UsageError(
                f"Graph: {entities:,} entities and {len(self.relations):,} relations leave room "
                f"for {edges:,} edges, more than {MOST:,}: give the part that is asked about"
            )

    def _kept_types(self) -> Tensor:
        facts = torch.tensor(self.facts)
        leaves = torch.zeros(len(self.entities), self.steps, dtype=torch.bool)
        leaves[facts[:, 0], facts[:, 1]] = True
        leaves[facts[:, 2], self.back(facts[:, 1])] = True
        arrives = leaves[:, self.back(torch.arange(self.steps))].T
        itself = torch.eye(len(leaves), dtype=torch.bool)[:, None]
        return (leaves[:, :, None] & arrives & ~itself).flatten()

    def _seen_from(self, end: int, fact: Fact) -> int:
        head, relation, tail = fact
        edge = (head * self.steps + relation) * len(self.entities) + tail
        return edge if end == head else int(self.facing(edge))

    def _entity(self, name: str) -> int:
        if name not in self._numbers:
            raise UsageError(
                f"{name!r} is no entity of this graph, which has {len(self.entities)}: "
                f"{_some(self.entities)}"
            )
        return self._numbers[name]

    def _relation(self, name: str) -> int:
        if name not in self._kinds:
            raise UsageError(
                f"{name!r} is no relation of this graph, which has {_some(self.relations)}"
            )
        return self._kinds[name]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
