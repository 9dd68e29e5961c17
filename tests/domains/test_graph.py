"""Queries to a graph: how neighbourhoods are gathered, told apart and refused."""

from __future__ import annotations

import pytest
import torch
from drawn import generators, reproducible
from hypothesis import given
from torch import Generator, Tensor

from effattack.domains import Graph, check_domain
from effattack.domains.by_name import domain_of
from effattack.domains.tokens import PAD
from effattack.errors import UsageError

FACTS = [("ann", "parent", "bob"), ("bob", "parent", "cid"), ("ann", "owns", "dog")]
GRAPH = Graph(FACTS, cap=4, entities=["ann", "bob", "cid", "dog", "eve"])
ANN, BOB, CID, DOG, EVE = range(5)
OWNS, PARENT = range(2)


def edge(near: int, step: int, far: int) -> int:
    """The id that the docstring states, of two relations and five entities."""
    return (near * 4 + step) * 5 + far


def test_its_laws_hold() -> None:
    check_domain(GRAPH)
    check_domain(domain_of("graph(facts=[('a', 'r', 'b'), ('b', 'r', 'c')], cap=3)"))


def test_a_query_holds_its_own_edges_first_then_those_of_its_neighbours() -> None:
    found = GRAPH.query("ann", "parent", [("bob", "parent", "cid"), *FACTS[::2]])
    expected = [
        ANN * 4 + PARENT,
        edge(ANN, PARENT, BOB),
        edge(ANN, OWNS, DOG),
        edge(BOB, PARENT, CID),
    ]
    assert found.tolist() == [expected]
    hops, links = GRAPH.reach(found)
    assert hops.tolist() == [[0, 1, 1, 2]]
    assert links[0, 3] == 1, "by the edge that leads to bob"


def test_edges_are_seen_from_their_nearer_end() -> None:
    found = GRAPH.query("bob", "owns", FACTS, against=True)
    assert found.tolist() == [
        [BOB * 4 + 2 + OWNS, edge(BOB, 2 + PARENT, ANN), edge(BOB, PARENT, CID), edge(0, OWNS, DOG)]
    ]
    assert GRAPH.facing(edge(BOB, 2 + PARENT, ANN)) == edge(ANN, PARENT, BOB)


def test_a_hub_keeps_the_newest_edges_and_an_entity_without_edges_is_asked_about_alone() -> None:
    many = [("eve", "owns", end) for end in ("ann", "bob", "cid", "dog")]
    newest = [("eve", "parent", "ann"), *many]
    assert GRAPH.query("eve", "owns", newest).shape == (1, 1 + GRAPH.cap)
    assert GRAPH.query("eve", "owns", newest)[0, 1] == edge(EVE, PARENT, ANN)
    alone = GRAPH.query("eve", "owns")
    assert alone.tolist() == [[EVE * 4 + OWNS]]
    GRAPH.check(alone)
    assert GRAPH.query("eve", "owns", FACTS).tolist() == alone.tolist(), "farther than two edges"


def test_types_are_kept() -> None:
    """Parents have children among bob and cid, owners are ann alone, what is owned the dog."""
    ends = {PARENT: ({ANN, BOB}, {BOB, CID}), OWNS: ({ANN}, {DOG})}
    allowed = GRAPH.allowed()
    for near in range(5):
        for relation, (heads, tails) in ends.items():
            for far in range(5):
                along = near in heads and far in tails and near != far
                assert allowed[edge(near, relation, far)] == along
                assert allowed[edge(far, 2 + relation, near)] == along


@reproducible
@given(generators())
def test_an_edge_is_far_where_no_walk_of_two_edges_leads(generator: Generator) -> None:
    """Against a search from the entity outwards, edge by edge."""
    rows = GRAPH.snap(torch.randint(0, GRAPH.vocabulary, (6, 5), generator=generator))
    rows[:, 0] = torch.randint(0, 20, (6,), generator=generator)
    rows = GRAPH.snap(rows)
    for row, hops in zip(rows.tolist(), GRAPH.reach(rows).hops.tolist(), strict=True):
        head = row[0] // 4
        ends = {n: (i // 20, i % 5) for n, i in enumerate(row) if n and i != PAD}
        near = {far for at, far in ends.values() if at == head}
        expected = {n: 1 if at == head else 2 * (at in near) for n, (at, _) in ends.items()}
        assert hops == [expected.get(n, 0) for n in range(len(row))]


def refused(ids: Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GRAPH.check(ids)


def test_what_is_no_query_is_refused() -> None:
    known = edge(ANN, PARENT, BOB)
    refused(torch.tensor([[0, known, known]]), "query 0 has an edge that exists already")
    again = torch.tensor([[0, PAD, PAD], [0, known, edge(BOB, 2 + PARENT, ANN)]])
    refused(again, "query 1 has an edge that exists already: give each once")
    refused(torch.tensor([[20, known]]), "query 0 asks for an entity or a relation outside")
    refused(torch.tensor([[0, GRAPH.vocabulary]]), "ids outside .* of this graph's entities")
    refused(torch.tensor([[0, 1, 2, 3, 4, 5]]), "more than 5 places")
    refused(torch.tensor([[0.5]]), "not integer: build them with domain.query")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("zoe", "owns"), "'zoe' is no entity of this graph, which has 5: ann, bob"),
        (("ann", "likes"), "'likes' is no relation of this graph, which has owns, parent"),
        (("ann", "owns", [("ann", "owns", "cat")]), "'cat' is no entity"),
        (("ann", "owns", [FACTS[0], FACTS[0]]), "stands twice: give each once"),
    ],
)
def test_names_outside_the_graph_and_edges_that_exist_are_refused(
    arguments: tuple, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        GRAPH.query(*arguments)


@pytest.mark.parametrize(
    ("facts", "cap", "message"),
    [
        ([], 4, "no facts"),
        (FACTS, 0, "cap = 0"),
        ([*FACTS, ("zoe", "owns", "dog")], 4, "'zoe' is no entity"),
        ([("ann", "likes", "ann")], 4, "one entity has no edges"),
        ([(f"{i}", "r", f"{i + 1}") for i in range(9000)], 4, "room for 162,036,002 edges, more"),
    ],
)
def test_graphs_that_are_none_are_refused(facts: list, cap: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Graph(facts, cap, entities=GRAPH.entities if "zoe" in message else None)
