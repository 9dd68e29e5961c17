"""Link prediction that reads the neighbourhood of a query until its answer is sure.

After Tang et al. 2020 (arXiv 1911.04910), who read all of it: every edge says by its transform
where the entity asked about must lie, and its context is the mean of those vectors and its own;
edges that leave it make one context, edges that come in another. Here edges are read in batches,
those of the entity first and then those of its neighbours through the edge that leads there, the
newest first, and after each batch the answer is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.counting.tallies import Count, tally
from effattack.domains.graph import Graph
from effattack.domains.tokens import PAD, padded
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Criterion, as_criterion
from effattack.models_zoo.graphs.orthogonal import Transforms
from effattack.victim import Gate, Trace, Victim
from effattack.victim.leaf import Leaf


class Neighbours(NamedTuple):
    """Edges of a neighbourhood in the order in which they are read, (B, n) each."""

    step: Tensor
    far: Tensor
    link: Tensor
    """The step to the nearer end, of an edge at distance 2."""
    inward: Tensor
    """bool: they come in at the entity asked about, or behind an edge that does."""
    there: Tensor
    """bool: they are read; all such stand first."""
    behind: Tensor
    """bool: they are at distance 2."""
    order: Tensor
    """Where they stand in the query."""

    def alone(self) -> Neighbours:
        """Those of one query that are read, (n,) each."""
        return Neighbours(*(part[self.there] for part in self))


class LinkPredictor(Victim):
    """Answers (head, relation, ?) as soon as it is sure, or has read all that there is.

    ``forward`` neither transforms nor looks at what comes behind. One gate, ``looks``: a unit per
    batch of edges but the last, active where reading goes on; where all edges are read, nothing is
    decided any more. How many were read stands beside the MACs, as the count ``edges``. An entity
    without edges is answered by its own vector. Classes are the entities.

    Args:
        transforms: of the entities and relations of the graph.
        domain: of the queries.
        every: edges of a batch.
        criterion: when to stop; a number is a confidence threshold.
        settings: ``name``, ``data``.

    Raises:
        UsageError: if ``every`` leaves no look before the last, or the criterion does not fit.
    """

    domain: Graph

    def __init__(
        self,
        transforms: Transforms,
        domain: Graph,
        *,
        every: int,
        criterion: float | Sequence[float] | Criterion,
        name: str = "LinkPredictor",
        **settings: Any,
    ) -> None:
        if not 0 < every < domain.cap:
            raise UsageError(
                f"every = {every} of at most {domain.cap} edges: the answer must be looked at at "
                "least once before the last"
            )
        super().__init__(
            name=name,
            family="early exit",
            domain=domain,
            num_classes=len(domain.entities),
            counts={"edges": Count("edge", _at_hand)},
            **settings,
        )
        self.transforms, self.every = transforms, every
        self.looks = -(-domain.cap // every)
        self.criterion = as_criterion(criterion, self.looks - 1)
        own, behind = 1, domain.cap - 1
        self.max_macs = self.dense_macs = float(
            (own + 2 * behind) * transforms.step_macs + self.looks * transforms.answer_macs
        )
        self.eval()

    def lift(self, batch: Tensor, places: Tensor) -> Leaf:
        """Where an edge says that its nearer end lies: (B, k, blocks · size)."""
        _, step, far = self.domain.edges(batch.gather(1, places.clamp_max(batch.shape[1] - 1)))
        return Leaf(self._said(step, far).flatten(2), places)

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        if count != "macs":
            return super().ceiling(batch, count)
        own = self.domain.reach(batch).hops == 1
        edges = _at_hand(batch)
        return self._price(2 * edges - own.sum(1), -(-edges // self.every))

    def _price(self, steps: Tensor, looks: Tensor) -> Tensor:
        """float64: MACs of so many transforms and looks, of which there is at least one."""
        prices = self.transforms.step_macs, self.transforms.answer_macs
        return steps.double() * prices[0] + looks.clamp_min(1).double() * prices[1]

    def forward(self, batch: Tensor) -> Tensor:
        return torch.cat([self._one(single) for single in self.domain.singles(batch)])

    def _one(self, query: Tensor) -> Tensor:
        """Logits (1, entities) of one query (1, n), of the look that it stopped at."""
        head, asked = self.domain.asked(query)
        edges = self._in_order(query).alone()
        total = self.transforms.entities[head].expand(2, -1, -1)
        count = torch.ones(2, 1, 1, dtype=self.dtype, device=query.device)
        seen: list[Tensor] = []
        for first in range(0, max(1, len(edges.step)), self.every):
            some = Neighbours(*(part[first : first + self.every] for part in edges))
            said = self._said(some.step, some.far)
            said[some.behind] = self._led(some.link[some.behind], said[some.behind])
            tally("edges", len(said))
            sides = _sides(some.inward, said)
            total = total + (sides[..., None, None] * said[:, None]).sum(0)
            count = count + sides.sum(0)[:, None, None]
            seen.append(self.transforms.logits((total / count)[None], asked))
            if first + self.every >= len(edges.step) or not self.criterion.go_on(
                torch.stack(seen, 1)
            ):
                break
        return seen[-1]

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        batch = padded(batch, max(self.domain.longest, batch.shape[1]))
        stages = self.stages(batch, leaf)
        so_far = [stages[:, : k + 1] for k in range(self.looks - 1)]
        edges = self._in_order(batch)
        ends, read = self._ends(batch), edges.there.sum(1, keepdim=True)
        more = read > ends[:-1]
        onward = torch.stack([self.criterion.go_on(seen) for seen in so_far], 1) & more
        active = onward.cumprod(1).bool()
        reached = more & torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], 1)
        steps = (edges.there.long() + edges.behind.long()).cumsum(1)
        looked = torch.minimum(ends, read)
        spent = self._price(steps.gather(1, (looked - 1).clamp_min(0)), -(-looked // self.every))
        rows, taken = torch.arange(len(batch), device=batch.device), active.sum(1)
        gate = Gate(
            name="looks",
            margin=torch.stack([self.criterion.margin(seen) for seen in so_far], 1),
            active=active,
            reached=reached,
            cost=(spent[:, -1:] - spent[:, :-1]).clamp_min(self.transforms.answer_macs),
            proxy=self.criterion.proxy,
            pushed=True,
        )
        return Trace(
            logits=stages[rows, taken],
            gates=(gate,),
            macs=spent[rows, taken],
            stage_logits=stages,
            also={"edges": looked[rows, taken].double()},
        )

    def stages(self, batch: Tensor, leaf: Leaf | None = None, own: Tensor | float = 1.0) -> Tensor:
        """(B, looks, entities): what every look says, were it the last.

        Args:
            batch: queries (B, L).
            leaf: rows in the place of what edges say.
            own: weight (B, 1) of the entity's own vector among those of its edges.
        """
        batch = padded(batch, max(self.domain.longest, batch.shape[1]))
        head, asked = self.domain.asked(batch)
        _, step, far = self.domain.edges(batch)
        edges = self._in_order(batch)
        said = self._said(step, far).flatten(2)
        if leaf is not None:
            said = said.scatter(1, leaf.places[:, :, None].expand_as(leaf.rows), leaf.rows)
        said = said.gather(1, edges.order[:, :, None].expand(-1, -1, said.shape[2]))
        said = said.unflatten(2, (self.transforms.blocks, -1))
        said = torch.where(edges.behind[..., None, None], self._led(edges.link, said), said)
        sides = _sides(edges.inward, said) * edges.there[..., None]
        weight = torch.as_tensor(own).to(said).expand(len(batch), 1)[:, None]
        at = self._ends(batch).clamp_max(edges.step.shape[1]) - 1
        total = (sides[..., None, None] * said[:, :, None]).cumsum(1)[:, at]
        total = total + (weight * self.transforms.entities[head])[:, None, None]
        contexts = total / (weight + sides.cumsum(1)[:, at])[..., None, None]
        asked = asked[:, None].expand(-1, self.looks).flatten()
        return self.transforms.logits(contexts.flatten(0, 1), asked).unflatten(0, (-1, self.looks))

    def _ends(self, batch: Tensor) -> Tensor:
        """(looks,): how many edges are read by each look, where there are as many."""
        return torch.arange(1, 1 + self.looks, device=batch.device) * self.every

    def _in_order(self, batch: Tensor) -> Neighbours:
        """The edges (B, L - 1) in the order in which they are read."""
        domain = self.domain
        hops, links = domain.reach(batch)
        order = hops.where(hops > 0, 3).argsort(dim=1, stable=True)[:, : batch.shape[1] - 1]
        _, step, far = domain.edges(batch)
        link = step.gather(1, links)
        found = hops, step, far, link, torch.where(hops == 2, link, step) >= len(domain.relations)
        hops, step, far, link, inward = (part.gather(1, order) for part in found)
        return Neighbours(step, far, link, inward, hops > 0, hops == 2, order)

    def _said(self, step: Tensor, far: Tensor) -> Tensor:
        """Where edges say that their nearer ends lie: (...) -> (..., blocks, size)."""
        entities = self.transforms.entities[far.clamp_min(0)]
        return self.transforms.moved(self.domain.back(step), entities)

    def _led(self, link: Tensor, said: Tensor) -> Tensor:
        """What is said of a neighbour as what it says of the entity, by the edge between them."""
        return self.transforms.moved(self.domain.back(link), said)


def _sides(inward: Tensor, like: Tensor) -> Tensor:
    """(...) -> (..., 2): whether edges leave, and whether they come in, as numbers."""
    return torch.stack([~inward, inward], -1).to(like)


def _at_hand(batch: Tensor) -> Tensor:
    """(B,): all edges of queries."""
    return (batch[:, 1:] != PAD).sum(1)
