"""Attacks that add edges, against the worst of all edges that there are."""

from __future__ import annotations

import pytest
import torch

from effattack.attacks import build
from effattack.attacks.by_name import defaults
from effattack.attacks.effort import metered
from effattack.domains import Graph
from effattack.errors import NotApplicable
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.graphs.orthogonal import Transforms
from effattack.threats import parse_threat, usual_threat
from effattack.victim import Trace

NAMES = [f"n{i}" for i in range(10)]
WAYS = {"a": 1, "b": 3}
FACTS = [(f"n{i}", name, f"n{(i + way) % 10}") for i in range(10) for name, way in WAYS.items()]
GRAPH = Graph(FACTS, cap=8)


def made() -> LinkPredictor:
    torch.manual_seed(1)
    transforms = Transforms(10, 2, 3, 2)
    transforms.free()
    transforms.fixed()
    with torch.no_grad():
        transforms.sharpness.fill_(2.0)
    return LinkPredictor(transforms, GRAPH, every=2, criterion=0.45)


def asked() -> torch.Tensor:
    known = {name: [fact for fact in FACTS if fact[:2] != (name, "b")] for name in NAMES}
    rows = [GRAPH.query(name, "b", facts[:14]) for name, facts in known.items()]
    return GRAPH.join(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["BestOfRandom(draws=150)", "QueryAttack(queries=150)", "Slowdown"]
)
def test_every_attack_stays_inside_and_finds_most_of_the_worst(name: str) -> None:
    victim, clean = made(), asked()
    threat = parse_threat("edges:1").on(GRAPH)
    worst = []
    with torch.no_grad():
        before = victim.trace(clean).macs
        for single in GRAPH.singles(clean):
            found = [victim.trace(batch).macs.max() for batch in threat.every(single, 64)]
            worst.append(max(found))
        attacked = build(name, victim, threat)(clean)
        after = victim.trace(attacked).macs
    threat.check(attacked, clean)
    exact = torch.stack(worst)
    assert exact.sum() > 1.2 * before.sum(), "there is something to find"
    assert (after >= before).all()
    assert (after <= exact).all()
    assert (exact - after).sum() <= 0.1 * (exact - before).sum()
    assert (exact <= victim.ceiling(threat.largest(clean))).all()


def test_gradients_name_edges_of_the_entity_that_is_asked_about() -> None:
    threat, clean = parse_threat("edges:2").on(GRAPH), asked()
    words = torch.tensor(threat.words())
    gain = threat.gains(clean, clean, lambda ids: torch.zeros(10, 2, len(ids)), torch.Generator())
    assert gain.shape == (10, 2, len(words))
    own = GRAPH.edges(words).near == GRAPH.asked(clean)[0][:, None]
    assert torch.equal(gain[:, 0] > -torch.inf, own & (words != clean[:, 1:2]))


def test_what_is_usual_of_a_graph() -> None:
    victim = made()
    assert defaults(victim) == ["Slowdown"]
    assert str(usual_threat(GRAPH)) == "edges:2"
    with pytest.raises(NotApplicable, match="takes queries, not prompts: count gradients"):
        metered(victim)
    with pytest.raises(NotApplicable, match=r"SAME changes tokens, .* takes queries; Slowdown"):
        build("SAME", victim, parse_threat("edges:2"))


def test_a_run_that_reads_to_the_end_has_nothing_left_to_take() -> None:
    victim, clean = made(), asked()
    victim.criterion = type(victim.criterion)(1.0)
    with torch.no_grad():
        trace: Trace = victim.trace(clean)
    assert torch.equal(trace.macs, victim.ceiling(clean))
