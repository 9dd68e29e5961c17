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

from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import torch
from debaters import AsHeard, Claims, Debate, by_side
from kept_rows import command
from tables import markdown
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.attacks import build
from effattack.domains.tokens import padded
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.graphs import families
from effattack.models_zoo.graphs.embedded import family_links
from effattack.models_zoo.graphs.knowledge import Knowledge, Question
from effattack.threats import parse_threat
from effattack.threats.links import NewEdges
from effattack.victim import audit

EDGES = 64
"""Most edges at hand for one claim."""
EPOCHS, BATCH, RATE = 40, 64, 3e-3
FORGOTTEN = 0.25
"""Share of paths that a claim is without in training: facts that are asked for are cut off, too."""
DROP = 0.01
"""Accuracy on held-out claims that stopping early may cost."""
BUDGETS = ("edges:1", "edges:2", "edges:4")
CLEAN, GREEDY = "clean", "edges to the tail"
ATTACKS = ("noise", "BestOfRandom(draws=120)", "QueryAttack(queries=120)", GREEDY)
ROWS = Path(__file__).with_suffix(".jsonl")


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
            for said in [victim.hears(by_side(flat, turn)).unflatten(0, told.shape[:2])]
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
    command(
        "arguments of a debate under attack",
        ROWS,
        ("eps", "attack"),
        [("", CLEAN), *product(BUDGETS, ATTACKS)],
        measured,
        lambda rows: markdown(table(rows)),
    )


if __name__ == "__main__":
    main()
