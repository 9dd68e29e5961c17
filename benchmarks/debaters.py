"""Two agents and a judge: a claimed triple is right or wrong by the paths that they bring.

Hildebrandt et al., "Reasoning on Knowledge Graphs with Debate Dynamics", AAAI 2020 (arXiv
2001.00461); what is different here stands in ``debate.py``, which trains and attacks it.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from effattack.counting.macs import count_macs
from effattack.counting.tallies import Count, tally
from effattack.domains import Graph
from effattack.domains.tokens import PAD
from effattack.models_zoo.criteria import Confidence
from effattack.victim import Gate, Trace, Victim

WORDS, WIDTH = 16, 48
"""Numbers of a relation's vector and of a layer."""
MOST = 8
"""Arguments heard, at most."""


class Claims(Graph):
    """Place 0 holds a claimed triple, as the edge (head, step, tail) that it would be."""

    noun, nouns = "claim", "claims"

    def asked(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        near, step, _ = self.edges(ids[:, 0])
        return near, step

    def claimed(self, ids: Tensor) -> Tensor:
        """(B, L) -> the tails that are claimed, (B,)."""
        return self.edges(ids[:, 0]).far

    def claims(self, queries: Tensor, tails: Tensor) -> Tensor:
        """Queries (B, L) and tails (B,) -> (B, L)."""
        return torch.cat([queries[:, :1] * len(self.entities) + tails[:, None], queries[:, 1:]], 1)

    def to_the_tail(self, claim: Tensor) -> Tensor:
        """(n,): edges from the head of one claim (1, L), or from a neighbour, to its tail."""
        own = claim[self.reach(claim).hops == 1]
        near = torch.cat([self.asked(claim)[0], self.edges(own).far]).unique()
        starts = near[:, None] * self.steps + torch.arange(self.steps, device=claim.device)
        words = starts.flatten() * len(self.entities) + self.claimed(claim)
        return words[words != claim[0, 0]]

    def check(self, inputs: Tensor) -> None:
        asked = inputs.clone()
        asked[:, 0] = asked[:, 0].div(len(self.entities), rounding_mode="floor")
        super().check(asked)


class Paths(NamedTuple):
    """What may be brought, a path to each edge at hand, (B, L) each."""

    first: Tensor
    """Step from the head."""
    second: Tensor
    """The step behind it; of a path of one edge, ``steps``."""
    end: Tensor
    there: Tensor


class Debate(Victim):
    """Hears paths for and against a claim in turn; classes are wrong and right.

    One gate, ``turns``: a unit per argument but the last, active where another one is heard. Where
    all paths are brought, nothing is decided any more. Both agents look at every path at the start.

    Args:
        entities: their vectors (n, blocks, size); not trained.
        domain: of the claims.
        criterion: when the judge is sure.
        most: arguments heard.
    """

    domain: Claims
    entities: Tensor

    def __init__(
        self, entities: Tensor, domain: Claims, criterion: Confidence, most: int = MOST
    ) -> None:
        super().__init__(
            name="debate",
            family="early exit",
            domain=domain,
            num_classes=2,
            counts={"arguments": Count("argument", partial(_most, most))},
        )
        self.register_buffer("entities", entities.detach())
        self.criterion, self.most = criterion, most
        self.words = nn.Embedding(domain.steps + 1, WORDS)
        told = 3 * WORDS + entities.shape[1]
        self.agents = nn.Sequential(nn.Linear(told, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))
        self.hears = nn.Sequential(nn.Linear(told + 1, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        self.opens = nn.Linear(WORDS, WIDTH)
        self.judges = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, 1))
        self._costs = [
            float(count_macs(net, torch.zeros(1, width)))
            for net, width in (
                (self.opens, WORDS),
                (self.agents, told),
                (self.hears, told + 1),
                (self.judges, WIDTH),
            )
        ]
        paths, heard = torch.tensor([domain.cap]), torch.tensor([most])
        self.max_macs = self.dense_macs = self._price(paths, heard).item()
        self.eval()

    def ceiling(self, batch: Tensor, count: str = "macs") -> Tensor:
        if count != "macs":
            return super().ceiling(batch, count)
        paths = self.paths(batch).there.sum(1)
        return self._price(paths, paths.clamp_max(self.most))

    def forward(self, batch: Tensor) -> Tensor:
        return torch.cat([self._one(single) for single in self.domain.singles(batch)])

    def _one(self, claim: Tensor) -> Tensor:
        """Logits (1, 2) of one claim (1, L), of the argument at which the judge was sure."""
        paths = self.paths(claim)
        told = self.told(claim, Paths(*(part[paths.there][None] for part in paths)))[0]
        scores = self.agents(told)
        total = self.opening(claim)
        seen: list[Tensor] = []
        for turn in range(min(self.most, len(told))):
            best = scores[:, turn % 2].argmax()
            scores[best] = -torch.inf
            tally("arguments")
            total = total + self.hears(by_side(told[best][None], turn))
            seen.append(_classes(self.judges(total)))
            if turn + 1 == len(told) or not self.criterion.go_on(torch.stack(seen, 1)):
                break
        return seen[-1] if seen else _classes(self.judges(total))

    def trace(self, batch: Tensor) -> Trace:
        stages, paths = self.stages(batch), self.paths(batch).there.sum(1, keepdim=True)
        turns = torch.arange(1, self.most + 1, device=batch.device)
        so_far = [stages[:, :turn] for turn in range(1, self.most)]
        more = paths > turns[:-1]
        onward = torch.stack([self.criterion.go_on(seen) for seen in so_far], 1) & more
        active = onward.cumprod(1).bool()
        reached = more & torch.cat([torch.ones_like(active[:, :1]), active[:, :-1]], 1)
        heard = torch.minimum(turns, paths)
        spent = self._price(paths, heard)
        rows, taken = torch.arange(len(batch), device=batch.device), active.sum(1)
        gate = Gate(
            name="turns",
            margin=torch.stack([self.criterion.margin(seen) for seen in so_far], 1),
            active=active,
            reached=reached,
            cost=(spent[:, -1:] - spent[:, :-1]).clamp_min(sum(self._costs[2:])),
            proxy=self.criterion.proxy,
            pushed=True,
        )
        return Trace(
            logits=stages[rows, taken],
            gates=(gate,),
            macs=spent[rows, taken],
            stage_logits=stages,
            also={"arguments": heard[rows, taken].double()},
        )

    def stages(self, batch: Tensor) -> Tensor:
        """(B, most, 2): what the judge says after every argument."""
        paths = self.paths(batch)
        told = self.told(batch, paths)
        return _classes(self.heard(batch, told, *self.brought(self.agents(told), paths.there)))

    def heard(self, batch: Tensor, told: Tensor, places: Tensor, there: Tensor) -> Tensor:
        """(B, most, 1): the judge's log-odds after every argument.

        Args:
            batch: claims (B, L).
            told: what paths tell (B, L, n).
            places: which are brought (B, most).
            there: whether there was one to bring (B, most).
        """
        some = told.gather(1, places[:, :, None].expand(-1, -1, told.shape[2]))
        sides = [by_side(some[:, turn], turn) for turn in range(self.most)]
        said = self.hears(torch.stack(sides, 1)) * there[..., None]
        return self.judges(self.opening(batch)[:, None] + said.cumsum(1))

    def brought(self, scores: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """The places (B, most) of the paths that agents bring, and whether there was one.

        Args:
            scores: (B, L, 2), of the agent for and of the one against.
            there: (B, L), which are paths.
        """
        left, places = there, []
        for turn in range(self.most):
            best = scores[..., turn % 2].masked_fill(~left, -torch.inf).argmax(1, keepdim=True)
            left = left.scatter(1, best, False)
            places.append(best)
        turns = torch.arange(self.most, device=there.device)
        return torch.cat(places, 1), there.sum(1, keepdim=True) > turns

    def paths(self, batch: Tensor) -> Paths:
        """The path to each edge at hand; of what is no edge, none."""
        hops, links = self.domain.reach(batch)
        _, step, far = self.domain.edges(batch)
        behind = hops == 2
        return Paths(
            first=step.gather(1, links).where(behind, step),
            second=step.where(behind, self.domain.steps),
            end=far,
            there=hops > 0,
        )

    def told(self, batch: Tensor, paths: Paths) -> Tensor:
        """(B, L, n): the steps of paths, the one claimed, and how far the end is from the tail."""
        _, asked = self.domain.asked(batch)
        ends = self.entities[paths.end.clamp_min(0)]
        apart = ends - self.entities[self.domain.claimed(batch)][:, None]
        steps = (paths.first, paths.second, asked[:, None].expand_as(paths.first))
        words = [self.words(step.clamp_min(0)) for step in steps]
        return torch.cat([*words, apart.norm(dim=-1)], -1)

    def opening(self, batch: Tensor) -> Tensor:
        """(B, WIDTH): what is said before any argument. Divergence: of the relation alone, as the
        vectors of head and tail have learned every fact that is known, and none that is not."""
        return self.opens(self.words(self.domain.asked(batch)[1]))

    def _price(self, paths: Tensor, heard: Tensor) -> Tensor:
        """float64: MACs of so many paths looked at and arguments heard; the judge speaks once at
        least."""
        opens, agents, hears, judges = self._costs
        spoken = heard.clamp_min(1).double() * judges
        return opens + paths.double() * agents + heard.double() * hears + spoken


class AsHeard(Debate):
    """The debate as attacks are to judge it: its work is arguments, not MACs."""

    @classmethod
    def of(cls, victim: Debate) -> AsHeard:
        """The same networks."""
        found = copy(victim)
        found.__class__ = cls
        assert isinstance(found, cls)
        return found

    def ceiling(self, batch: Tensor, count: str = "arguments") -> Tensor:
        return super().ceiling(batch, "arguments")

    def trace(self, batch: Tensor) -> Trace:
        trace = super().trace(batch)
        return trace._replace(macs=trace.also["arguments"])


def by_side(told: Tensor, turn: int) -> Tensor:
    """What a path (B, n) tells, and whose it is: 1 for, -1 against."""
    return torch.cat([told, torch.full_like(told[:, :1], 1 - 2 * (turn % 2))], -1)


def _classes(odds: Tensor) -> Tensor:
    """Log-odds (..., 1) as logits (..., 2)."""
    return torch.cat([-odds, odds], -1) / 2


def _most(most: int, batch: Tensor) -> Tensor:
    """(B,): arguments about claims, if all are heard."""
    return (batch[:, 1:] != PAD).sum(1).clamp_max(most)
