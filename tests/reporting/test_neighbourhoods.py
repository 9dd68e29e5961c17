"""Neighbourhoods in the report: what is drawn of a stored query, and where."""

from __future__ import annotations

import re

import numpy as np
import pytest

from effattack.domains import Graph
from effattack.reporting.neighbourhoods import Edge, can, edges, laid_out, show, told
from effattack.reporting.shown import kind_of
from effattack.reporting.stored import tokens
from effattack.reporting.strips import Pair

FACTS = [("ann", "parent", "bob"), ("bob", "parent", "cid"), ("ann", "owns", "dog")]
FACTS += [("cid", "parent", "dee"), ("eve", "owns", "cat")]
GRAPH = Graph(FACTS, cap=4)
TOLD = {**GRAPH.describe(), "shape": [None]}
ANN, BOB, CAT, CID, DEE, DOG, EVE = range(7)
CLEAN = GRAPH.query("bob", "owns", FACTS[:4])[0].numpy()
NEW = (BOB * 4 + 1) * 7 + DEE
ATTACKED = np.array([CLEAN[0], NEW, *CLEAN[1:-1]])


def drawn(read: object = 2.0) -> list[str]:
    row = {"sample": 0, "edges": read}
    strips = show([Pair(CLEAN, ATTACKED, {"sample": 0, "edges": 4.0}, row)], TOLD)
    return [f"{one.caption}|{one.body.__html__()}" for one in strips.examples[0]]


def test_edges_are_those_of_the_domain_in_the_order_of_reading() -> None:
    found = edges(ATTACKED.tolist(), TOLD)
    assert found[0] == Edge(BOB, 1, DEE)
    assert found[1:] == [Edge(BOB, 3, ANN), Edge(BOB, 1, CID), Edge(ANN, 0, DOG)]
    mixed = [int(CLEAN[0]), *CLEAN[:0:-1].tolist()]
    assert [edge.near == BOB for edge in edges(mixed, TOLD)] == [True, True, False, False]
    assert (told(1, TOLD), told(3, TOLD)) == ("parent", "parent, backwards")


def test_every_entity_has_a_place_of_its_own_and_what_is_behind_lies_farther_out() -> None:
    places = laid_out(BOB, edges(CLEAN.tolist(), TOLD))
    assert set(places) == {ANN, BOB, CID, DEE, DOG}
    assert len({*places.values()}) == 5
    x, y = places[BOB]

    def share(entity: int) -> float:
        """1 on the inner ellipse."""
        return ((places[entity][0] - x) / 96) ** 2 + ((places[entity][1] - y) / 72) ** 2

    assert share(ANN) == pytest.approx(1)
    assert share(CID) == pytest.approx(1)
    assert min(share(DOG), share(DEE)) > 2


def test_new_edges_stand_out_and_those_that_made_room_are_dashed() -> None:
    clean, attacked = drawn()
    assert clean.startswith("clean: 4 of 4 edges read, 1 made room|")
    assert attacked.startswith("attacked: 2 of 4 edges read, 1 added|")
    assert (clean.count('class="stop"'), clean.count('class="curve attacked"')) == (1, 0)
    assert (attacked.count('class="stop"'), attacked.count('class="curve attacked"')) == (0, 1)
    assert attacked.count('class="rule base"') == 1
    assert attacked.count('class="grid"') == 2
    assert re.search(r'class="mark attacked middle"[^>]*>parent<', attacked)
    for name in ("ann", "bob", "cid", "dee", "dog"):
        assert f">{name}<" in attacked
    assert "bob, owns" in attacked, "the label tells what is asked"


def test_where_nothing_tells_what_was_read_all_edges_are_dark() -> None:
    _, attacked = drawn(read=None)
    assert attacked.count('class="grid"') == 0


def test_a_report_shows_them_and_leaves_out_graphs_without_names() -> None:
    kind = kind_of(TOLD)
    assert kind is not None
    raw = ATTACKED.astype("<i4").tobytes()
    assert kind.read(raw, TOLD).tolist() == tokens(raw, TOLD).tolist() == ATTACKED.tolist()
    bare = {key: value for key, value in TOLD.items() if key != "entities"}
    assert not can(bare)
    assert kind_of(bare) is None
    assert kind.size(TOLD) > sum(map(len, drawn())) / 4
