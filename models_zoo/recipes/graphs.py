"""Graphs: transforms learn who is what to whom; held-out facts tell when to stop reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.domains.tokens import PAD
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.graphs import embedded, families
from effattack.models_zoo.graphs.knowledge import Knowledge, Question
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.recipes import cards, fitting

DROP = 0.005
"""Accuracy on held-out questions that stopping early may cost."""
FORGOTTEN = 0.8
"""How often an entity's own vector hardly counts in training: its edges must tell what it is."""


def train_family_links() -> None:
    """Both questions of every known fact, from a neighbourhood without it."""
    victim = embedded.family_links(trained=False)
    graph = families.knowledge()
    asked = [question for fact in graph.domain.facts for question in graph.asked(fact)]
    fit(victim, graph, asked, epochs=20)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    queries, answers = graph.queries(families.questions("heldout"))
    threshold = lowest_threshold(looks_of(victim, queries), answers, DROP)
    _describe(threshold)


def fit(victim: LinkPredictor, graph: Knowledge, asked: Sequence[Question], *, epochs: int) -> None:
    """Train all looks equally; other right answers to a question are no wrong ones.

    The order in which edges are read is drawn anew every time.
    """
    torch.manual_seed(0)
    queries, answers = graph.queries(asked)
    others = graph.others(asked)
    victim.transforms.free()

    def loss(queries: Tensor, rows: Tensor) -> Tensor:
        own = torch.where(torch.rand(len(rows), 1) < FORGOTTEN, 0.02, 1.0)
        stages = victim.stages(queries, own=own)
        said = stages.masked_fill(others[rows][:, None], -torch.inf)
        wanted = answers[rows][:, None].expand(-1, victim.looks)
        return F.cross_entropy(said.flatten(0, 1), wanted.flatten())

    data = queries, torch.arange(len(queries))
    fitting.fit(victim, loss, data, shuffled, epochs=epochs, rate=2e-2)
    victim.transforms.fixed()


def shuffled(queries: Tensor, generator: Generator) -> Tensor:
    """The same neighbourhoods in another order."""
    order = torch.rand(queries.shape, generator=generator).masked_fill(queries == PAD, 2.0)
    order[:, 0] = -1.0
    return queries.gather(1, order.argsort(1))


def looks_of(victim: LinkPredictor, queries: Tensor) -> Tensor:
    """(B, looks, entities): what every look says."""
    with torch.no_grad():
        stages = victim.trace(queries).stage_logits
    assert stages is not None
    return stages


def _describe(threshold: float) -> None:
    """Store the threshold, and then the card of the victim that reads it."""
    name = embedded.family_links.__name__
    write_card(name, {"threshold": threshold})
    victim = embedded.family_links()
    queries, answers = families.scored_questions()
    right = looks_of(victim, queries)[:, -1].argmax(1) == answers
    with torch.no_grad():
        trace, most = victim.trace(queries), victim.ceiling(queries)
    cards.describe(
        victim,
        queries,
        answers,
        data=f"{len(families.SURNAMES)} families of three generations, made by a formula: "
        f"{len(families.split().known)} known facts, {len(families.questions('heldout'))} held-out "
        f"and {len(queries)} test questions (effattack.models_zoo.graphs.families)",
        recipe=name,
        dense_accuracy=right.double().mean().item(),
        threshold=threshold,
        mean_ceiling=round(most.mean().item()),
        edges_read=round(trace.also["edges"].mean().item(), 2),
        edges_at_hand=round((queries[:, 1:] != PAD).sum(1).double().mean().item(), 2),
    )


RECIPES: dict[str, Callable[[], None]] = {"family_links": train_family_links}
