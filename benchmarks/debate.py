"""A debate about a claimed triple, heard until a judge is sure, attacked by edges more.

    python benchmarks/debate.py
    python benchmarks/debate.py --table

After Hildebrandt et al. 2020 (arXiv 2001.00461): two agents in turn bring paths, of one or two
edges from the head, one for the claim and one against it, and a judge adds up what it hears. That
it stops once it is sure is ours: cost is arguments heard. Divergences: an agent does not walk, it
brings the path that it scores highest of those not yet brought, and is taught by how far each path
alone moves the judge, not by REINFORCE. Entities are the vectors of ``family_links``,
frozen; judge and agents are trained here, in seconds, the same each time.

Claims are facts that the graph does not know and, as often, the same with another tail of the right
type, of the same family where there is one. The threshold is chosen on held-out claims: the lowest
confidence whose accuracy is within a point of that of hearing all. Rows that are there are not run
again.
"""

from __future__ import annotations

from copy import copy
from functools import cache, partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.attacks import build
from effattack.cells.spec import code_version
from effattack.counting.macs import count_macs
from effattack.counting.tallies import Count, tally
from effattack.domains import Graph
from effattack.domains.tokens import PAD, padded
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.graphs import families
from effattack.models_zoo.graphs.embedded import family_links
from effattack.models_zoo.graphs.knowledge import Knowledge, Question
from effattack.threats import parse_threat
from effattack.threats.links import NewEdges
from effattack.victim import Gate, Trace, Victim, audit

EDGES, MOST = 64, 8
"""Most edges at hand for one claim, and most arguments heard."""
WORDS, WIDTH = 16, 48
"""Numbers of a relation's vector and of a layer."""
EPOCHS, BATCH, RATE = 40, 64, 3e-3
FORGOTTEN = 0.25
"""Share of paths that a claim is without in training: facts that are asked for are cut off, too."""
DROP = 0.01
"""Accuracy on held-out claims that stopping early may cost."""
BUDGETS = ("edges:1", "edges:2", "edges:4")
CLEAN, GREEDY = "clean", "edges to the tail"
ATTACKS = ("noise", "BestOfRandom(draws=120)", "QueryAttack(queries=120)", GREEDY)
ROWS = Path(__file__).with_suffix(".jsonl")


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
            total = total + self.hears(_by(told[best][None], turn))
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
        sides = [_by(some[:, turn], turn) for turn in range(self.most)]
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


def _by(told: Tensor, turn: int) -> Tensor:
    """What a path (B, n) tells, and whose it is: 1 for, -1 against."""
    return torch.cat([told, torch.full_like(told[:, :1], 1 - 2 * (turn % 2))], -1)


def _classes(odds: Tensor) -> Tensor:
    """Log-odds (..., 1) as logits (..., 2)."""
    return torch.cat([-odds, odds], -1) / 2


def _most(most: int, batch: Tensor) -> Tensor:
    """(B,): arguments about claims, if all are heard."""
    return (batch[:, 1:] != PAD).sum(1).clamp_max(most)


@cache
def domain() -> Claims:
    """Claims about the graph of ``family_links``, with more of it at hand."""
    found = families.split()
    return Claims(found.known, EDGES, entities=found.people)


@cache
def knowledge() -> Knowledge:
    """What that graph knows."""
    return Knowledge(domain())


def wrong_tails(questions: list[Question], chance: Random) -> Tensor:
    """(B,): others that stand at that end of that relation, of the same family where there are."""
    graph, found = knowledge(), []
    names, ends = graph.domain.entities, [set[int]() for _ in range(graph.domain.steps)]
    for (_, step), answers in graph.answers.items():
        ends[step] |= answers
    for head, step, answer, _ in questions:
        typed = sorted(ends[step] - {head, answer})
        near = [end for end in typed if names[end].split()[1] == names[head].split()[1]]
        found.append(chance.choice(near or typed))
    return torch.tensor(found)


def claims(which: str, seed: int) -> tuple[Tensor, Tensor]:
    """As many right ones as wrong ones (2 B, L), and which are right."""
    graph, questions = knowledge(), families.questions(which)
    queries, answers = graph.queries(questions)
    tails = torch.cat([answers, wrong_tails(questions, Random(seed))])
    right = torch.arange(2 * len(questions)) < len(questions)
    return domain().claims(queries.repeat(2, 1), tails), right.long()


def trained(victim: Debate) -> Debate:
    """The judge learns from what agents bring and from what chance does; they learn from it."""
    dice = Generator().manual_seed(0)
    optimizer = torch.optim.Adam(victim.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        batch, right = claims("known", seed=epoch)
        for rows in torch.randperm(len(batch), generator=dice).split(BATCH):
            optimizer.zero_grad()
            loss(victim, batch[rows], right[rows], dice).backward()
            optimizer.step()
        schedule.step()
    return victim


def loss(victim: Debate, batch: Tensor, right: Tensor, dice: Generator) -> Tensor:
    """Cross entropy after every argument; of agents, the distance to what a path alone does."""
    paths = victim.paths(batch)
    kept = torch.rand(paths.there.shape, generator=dice) >= FORGOTTEN
    paths = paths._replace(there=paths.there & kept)
    told = victim.told(batch, paths)
    scores = victim.agents(told.detach())
    chance = torch.rand(len(batch), 1, 1, generator=dice) < 0.5
    drawn = torch.rand(scores.shape, generator=dice)
    order = victim.brought(torch.where(chance, drawn, scores.detach()), paths.there)
    odds = victim.heard(batch, told, *order)[..., 0]
    wanted = right[:, None].expand_as(odds).to(odds)
    with torch.no_grad():
        opening = victim.opening(batch)[:, None]
        flat = told.flatten(0, 1)
        alone = [
            (1 - 2 * turn) * (victim.judges(opening + said) - victim.judges(opening))
            for turn in (0, 1)
            for said in [victim.hears(_by(flat, turn)).unflatten(0, told.shape[:2])]
        ]
    missed = F.smooth_l1_loss(scores, torch.cat(alone, -1), reduction="none")[paths.there].mean()
    return F.binary_cross_entropy_with_logits(odds, wanted) + missed


@cache
def debate() -> Debate:
    """Trained, with the threshold of held-out claims."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        victim = Debate(family_links().transforms.entities, domain(), Confidence(1.0))
    trained(victim)
    batch, right = claims("heldout", seed=1000)
    with torch.no_grad():
        victim.criterion = Confidence(lowest_threshold(victim.stages(batch), right, DROP))
    return victim


@torch.no_grad()
def to_the_tail(victim: AsHeard, batch: Tensor, threat: NewEdges) -> Tensor:
    """Claims (B, L) with edges more, one after the other, that all lead to the claimed tail.

    Each is the one with which most is heard, and of those the judge least sure; none is the claim
    itself, and none is added where that gains nothing.
    """
    return torch.cat(
        [_to_its_tail(victim, claim, threat) for claim in victim.domain.singles(batch)]
    )


def _to_its_tail(victim: AsHeard, claim: Tensor, threat: NewEdges) -> Tensor:
    domain, found = victim.domain, padded(claim, victim.domain.longest)
    words = domain.to_the_tail(claim)
    for _ in range(threat.count):
        rows = found.repeat(len(words), 1)
        rows = torch.cat([rows[:, :1], words[:, None], rows[:, 1:-1]], 1)
        rows = rows[~domain.repeated(rows).any(1)]
        rows = torch.cat([found, rows[threat.contains(rows, claim.expand(len(rows), -1))]])
        trace = victim.trace(rows)
        unsure = 1 - trace.logits.softmax(1).amax(1)
        found = rows[(trace.macs + unsure).argmax()][None]
    return found


def measured(eps: str, attack: str) -> dict[str, Any]:
    """Means over test claims: executed work, and the verdicts."""
    victim, (batch, right) = debate(), claims("test", seed=2000)
    clean = audit(victim, batch)
    if attack != CLEAN:
        seen, threat = AsHeard.of(victim), parse_threat(eps).on(victim.domain)
        if attack == GREEDY:
            batch = to_the_tail(seen, batch, threat)
        else:
            batch = build(attack, seen, threat, seed=0)(batch, right)
    done = audit(victim, batch)
    heard, said = done.counts["arguments"], done.logits.argmax(1)
    with torch.no_grad():
        after_all = victim.stages(batch)[:, -1].argmax(1)
    return {
        "claims": len(batch),
        "heard": heard.mean().item(),
        "heard of right": heard[right == 1].mean().item(),
        "heard of wrong": heard[right == 0].mean().item(),
        "most": victim.ceiling(batch, "arguments").mean().item(),
        "more": (heard > clean.counts["arguments"]).double().mean().item(),
        "macs": done.macs.mean().item(),
        "ceiling": victim.ceiling(batch).mean().item(),
        "accuracy": (said == right).double().mean().item(),
        "hearing all": (after_all == right).double().mean().item(),
        "verdict stays": (said == clean.logits.argmax(1)).double().mean().item(),
        "threshold": victim.criterion.thresholds,
    }


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per budget and attack."""
    (clean,) = (row for row in rows if row["attack"] == CLEAN)
    lines = []
    for row in rows:
        back = (row["heard"] - clean["heard"]) / (row["most"] - clean["heard"])
        lines.append(
            {
                "threat": row["eps"],
                "inputs": row["attack"],
                "arguments heard": f"{row['heard']:.2f} of {row['most']:.1f}",
                "of right, wrong ones": f"{row['heard of right']:.2f}, {row['heard of wrong']:.2f}",
                "claims with more": "" if row is clean else f"{row['more']:.0%}",
                "savings retained": "" if row is clean else f"{1 - back:.1%}",
                "MACs": f"{row['macs'] / 1e3:.0f} k of {row['ceiling'] / 1e3:.0f} k",
                "accuracy (hearing all)": f"{row['accuracy']:.1%} ({row['hearing all']:.1%})",
                "verdict stays": "" if row is clean else f"{row['verdict stays']:.0%}",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    args = parser_of("arguments of a debate under attack", ROWS).parse_args()
    torch.set_num_threads(1)
    rows = kept(args.rows)
    if args.table:
        print(markdown(table(rows)))
        return
    done = {(row["eps"], row["attack"]) for row in rows}
    for asked in [("", CLEAN), *product(BUDGETS, ATTACKS)]:
        if asked not in done:
            found = measured(*asked)
            eps, attack = asked
            keep(args.rows, {"eps": eps, "attack": attack, **found, "code": code_version()})
            print(*asked, f"{found['heard']:.2f} arguments", flush=True)


if __name__ == "__main__":
    main()
