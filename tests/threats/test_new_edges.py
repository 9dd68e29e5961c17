"""Edges that an attacker adds: laws on queries drawn at random, and closed forms."""

from __future__ import annotations

import pytest
import torch
from drawn import generators, reproducible
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from effattack.domains import Graph, Tokens
from effattack.domains.properties import same
from effattack.domains.tokens import PAD, lengths
from effattack.errors import MeasurementError, NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.threats.links import NewEdges

FACTS = [("ann", "parent", "bob"), ("bob", "parent", "cid"), ("ann", "owns", "dog")]
FACTS += [("cid", "parent", "dee"), ("eve", "owns", "cat")]
GRAPH = Graph(FACTS, cap=4, entities=["ann", "bob", "cid", "dee", "dog", "eve", "cat", "zoe"])
CLEAN = GRAPH.query("bob", "owns", FACTS[:3])


def added(*edges: tuple[str, str, str], to: Tensor = CLEAN) -> Tensor:
    """The query with edges before its own, each seen from its first end."""
    steps = {"owns": 0, "parent": 1, "is owned by": 2, "child of": 3}
    number = GRAPH.entities.index
    new = [(number(a) * 4 + steps[s]) * 8 + number(b) for a, s, b in edges]
    return torch.tensor([[int(to[0, 0]), *new, *to[0, 1:].tolist()][: GRAPH.longest]])


def queries(generator: Generator) -> Tensor:
    """What is known of some entities, and of one of which nothing is."""
    heads = torch.randint(0, 8, (2,), generator=generator).tolist()
    rows = [GRAPH.query(GRAPH.entities[head], "parent", FACTS) for head in heads]
    return GRAPH.join([*rows, GRAPH.query("zoe", "owns", FACTS)])


@settings(reproducible, max_examples=20)
@given(st.integers(1, 4), generators())
def test_whatever_is_drawn_or_proposed_is_inside(count: int, generator: Generator) -> None:
    threat, clean = NewEdges(count).on(GRAPH), queries(generator)
    started = threat.start(clean, generator)
    threat.check(started, clean)
    threat.check(threat.largest(clean), clean)
    assert threat.contains(clean, clean).all()
    for proposed in (queries(generator), GRAPH.disturbed(started, generator)):
        found = threat.on_grid(proposed, clean)
        threat.check(found, clean)
        assert same(threat.on_grid(found, clean), found)
    assert GRAPH.pack(threat.on_grid(started, clean)) == GRAPH.pack(started)
    assert (lengths(started) <= lengths(threat.largest(clean))).all()


@settings(reproducible, max_examples=20)
@given(generators())
def test_one_edge_more_is_inside_or_nothing_changes(generator: Generator) -> None:
    threat, clean = NewEdges(2).on(GRAPH), queries(generator)
    found = threat.start(clean, generator)
    for slot in (0, 1):
        words = threat.draw(clean, generator)
        slots = torch.full((len(clean),), slot)
        found = threat.on_grid(threat.put(found, clean, slots, words, generator), clean)
        threat.check(found, clean)


@pytest.mark.parametrize(
    ("edges", "inside"),
    [
        ([("bob", "parent", "dee")], True),
        ([("bob", "child of", "cid")], True),
        ([("ann", "parent", "dee")], True),
        ([("bob", "parent", "dee"), ("ann", "owns", "cat")], True),
        ([("bob", "parent", "dee"), ("ann", "owns", "cat"), ("ann", "parent", "cid")], False),
        ([("bob", "parent", "cid")], False),
        ([("cid", "child of", "bob")], False),
        ([("bob", "parent", "dee"), ("bob", "parent", "dee")], False),
        ([("bob", "owns", "dog")], False),
        ([("bob", "parent", "dog")], False),
        ([("eve", "owns", "dog")], False),
        ([("bob", "parent", "bob")], False),
    ],
    ids=lambda found: "; ".join(map(" ".join, found)) if isinstance(found, list) else "",
)
def test_what_a_budget_of_two_edges_holds(edges: list, inside: bool) -> None:
    """Right ends, around bob or those next to him, and none that is there from whichever end."""
    threat = parse_threat("edges:2").on(GRAPH)
    assert str(threat) == "edges:2"
    found = added(*edges)
    assert threat.contains(found, CLEAN).tolist() == [inside]
    if not inside:
        with pytest.raises(MeasurementError, match="queries outside the budget edges:2"):
            threat.check(found, CLEAN)


def test_edges_behind_the_others_or_taken_away_are_outside() -> None:
    threat = NewEdges(2).on(GRAPH)
    new = added(("bob", "parent", "dee"))[:, 1:2]
    for changed in (torch.cat([CLEAN, new], 1), CLEAN[:, :-1], CLEAN[:, [0, 2, 1, 3]]):
        assert threat.contains(changed, CLEAN).tolist() == [False]


def test_a_list_of_the_budget_is_what_it_contains() -> None:
    """One edge: all ids are tried, and those inside are those listed."""
    threat = NewEdges(1).on(GRAPH)
    every = torch.arange(GRAPH.vocabulary)
    tried = torch.cat(
        [CLEAN[:, :1].expand(len(every), 1), every[:, None], CLEAN[:, 1:].expand(len(every), -1)], 1
    )
    tried = tried[~GRAPH.repeated(tried).any(1)]
    inside = threat.contains(tried, CLEAN.expand(len(tried), -1))
    listed = GRAPH.join([*threat.every(CLEAN, 16)])
    assert threat.members(CLEAN) == len(listed) == 1 + int(inside.sum())
    assert {*GRAPH.pack(listed)} == {*GRAPH.pack(GRAPH.join([CLEAN, tried[inside]]))}


def test_of_a_full_neighbourhood_the_oldest_edges_make_room() -> None:
    full = GRAPH.query("bob", "owns", [*FACTS[:4]])
    assert full.shape[1] == GRAPH.longest
    threat = NewEdges(2).on(GRAPH)
    found = added(("bob", "parent", "dee"), to=full)
    assert found.shape == full.shape
    assert threat.contains(found, full).all()
    assert threat.largest(full).shape == full.shape


def test_random_edges_are_as_often_next_to_the_entity_as_behind() -> None:
    threat, many = NewEdges(1).on(GRAPH), CLEAN.expand(400, -1)
    near = GRAPH.edges(threat.start(many, Generator().manual_seed(0))[:, 1]).near
    share = (near == GRAPH.entities.index("bob")).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.08)


def test_an_entity_of_no_fact_gets_no_edge() -> None:
    """No relation's type fits it: the clean query is all that there is."""
    threat, alone = NewEdges(2).on(GRAPH), GRAPH.query("zoe", "owns")
    assert threat.members(alone) == 1
    assert threat.start(alone, Generator().manual_seed(0)).tolist() == alone.tolist()


def test_an_entity_without_edges_can_be_given_some() -> None:
    threat, alone = NewEdges(2).on(GRAPH), GRAPH.query("eve", "owns")
    started = threat.start(alone, Generator().manual_seed(0))
    assert (started[0, 1:] != PAD).any()
    assert (GRAPH.reach(started).hops[0, 1:] == 1).all(), "there is nobody behind"


def test_counts_and_domains_that_are_none() -> None:
    with pytest.raises(UsageError, match="give a whole number of at least 1"):
        parse_threat("edges:0")
    with pytest.raises(UsageError, match="edges:5: at most 4 edges are at hand for one query"):
        NewEdges(5).on(GRAPH)
    with pytest.raises(NotApplicable, match=r"edges:2 changes graph, which prompts are not"):
        NewEdges(2).on(Tokens(9, 7))
    with pytest.raises(NotApplicable, match="suffix:2 changes tokens, which queries are not"):
        parse_threat("suffix:2").on(GRAPH)


@settings(reproducible, max_examples=20)
@given(generators())
def test_what_is_free_next_to_an_entity_is_what_the_budget_holds(generator: Generator) -> None:
    """The short way to all edges from one end, against one after another."""
    threat, clean = NewEdges(1).on(GRAPH), queries(generator)
    near = GRAPH.asked(clean)[0]
    words = near[:, None] * 32 + torch.arange(32)
    assert torch.equal(threat._free(near, clean), threat._may_join(words, clean))
