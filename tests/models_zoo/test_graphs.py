"""Link prediction from a neighbourhood: against loops over its edges, and rules of families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from toys import embedded_or_skip

import effattack
from effattack.domains import Graph
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.files import read_card
from effattack.models_zoo.graphs import families
from effattack.models_zoo.graphs.knowledge import Knowledge, read_triples
from effattack.models_zoo.graphs.links import LinkPredictor
from effattack.models_zoo.graphs.orthogonal import GramSchmidt, Transforms
from effattack.models_zoo.recipes.graphs import shuffled

FACTS = [("ann", "parent", "bob"), ("bob", "parent", "cid"), ("ann", "owns", "dog")]
FACTS += [("eve", "parent", "bob"), ("cid", "owns", "cat"), ("bob", "owns", "fox")]
GRAPH = Graph(FACTS, cap=5, entities=["ann", "bob", "cid", "dog", "eve", "cat", "fox", "zoe"])
QUERIES = GRAPH.join(
    [
        GRAPH.query("bob", "owns", FACTS),
        GRAPH.query("ann", "parent", FACTS[2:], against=True),
        GRAPH.query("zoe", "owns"),
        GRAPH.query("eve", "parent", FACTS),
    ]
)
BLOCKS, SIZE = 3, 2


def made(threshold: float = 0.6, every: int = 2) -> LinkPredictor:
    torch.manual_seed(0)
    transforms = Transforms(8, 2, BLOCKS, SIZE).double()
    transforms.free()
    transforms.fixed()
    with torch.no_grad():
        transforms.scales.normal_(std=0.2)
    return LinkPredictor(transforms, GRAPH, every=every, criterion=threshold)


def test_gram_schmidt_makes_what_torch_makes_but_for_signs() -> None:
    rows = torch.randn(5, 3, 3, dtype=torch.float64)
    made = GramSchmidt()(rows)
    torch.testing.assert_close(made @ made.mT, torch.eye(3, dtype=torch.float64).expand(5, 3, 3))
    torch.testing.assert_close(made.abs(), torch.linalg.qr(rows.mT).Q.mT.abs())


def test_a_step_back_undoes_a_step() -> None:
    transforms = made().transforms
    x, step = transforms.entities, torch.full((8,), 1)
    torch.testing.assert_close(transforms.moved(step + 2, transforms.moved(step, x)), x)
    torch.testing.assert_close(
        transforms.turns @ transforms.turns.mT, torch.eye(SIZE).double().expand(2, BLOCKS, -1, -1)
    )


def by_hand(victim: LinkPredictor, row: list[int], read: int) -> Tensor:
    """Logits after the first ``read`` edges, edge by edge and block by block."""
    t = victim.transforms
    head, asked = divmod(row[0], 4)
    edges = [(i // 8 // 4, i // 8 % 4, i % 8) for i in row[1:] if i != PAD]
    own = [edge for edge in edges if edge[0] == head]
    behind = [(e, next(o for o in own if o[2] == e[0])) for e in edges if e not in own]
    contexts = {False: [t.entities[head]], True: [t.entities[head]]}

    def across(step: int, x: Tensor) -> Tensor:
        """Along relation r by its matrix, and against it by the inverse."""
        matrix = t.scales[step % 2].exp() * t.turns[step % 2]
        return (torch.linalg.inv(matrix) if step >= 2 else matrix) @ x[..., None]

    for edge, link in [(edge, None) for edge in own][:read] + behind[: max(0, read - len(own))]:
        said = across((edge[1] + 2) % 4, t.entities[edge[2]])[..., 0]
        if link is not None:
            said = across((link[1] + 2) % 4, said)[..., 0]
        contexts[(link or edge)[1] >= 2].append(said)
    distance = torch.zeros(8, dtype=torch.float64)
    for vectors in contexts.values():
        moved = across(asked, torch.stack(vectors).mean(0))[..., 0]
        distance += (moved - t.entities).norm(dim=2).mean(1) / 2
    return -t.sharpness.exp() * distance


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_look_says_what_a_loop_over_its_edges_says(every: int) -> None:
    victim = made(every=every)
    stages = victim.trace(QUERIES).stage_logits
    assert stages is not None
    for row, said in zip(QUERIES.tolist(), stages, strict=True):
        for look in range(victim.looks):
            expected = by_hand(victim, row, (1 + look) * every)
            torch.testing.assert_close(said[look], expected)


def test_reading_stops_at_the_first_sure_look_and_macs_are_those_counted_by_hand() -> None:
    step, answer = BLOCKS * SIZE**2, 2 * BLOCKS * SIZE**2 + 2 * 8 * BLOCKS * SIZE
    own, there = [4, 1, 0, 1], [5, 1, 0, 4]
    stopped = set()
    for threshold in (0.0, 0.2, 0.25, 0.3, 1.0):
        victim = made(threshold)
        trace = victim.trace(QUERIES)
        assert trace.stage_logits is not None
        sure = trace.stage_logits.softmax(2).amax(2) >= threshold
        for row, read in enumerate(trace.also["edges"].long().tolist()):
            looks = -(-there[row] // 2) or 1
            taken = next((k + 1 for k in range(looks) if sure[row, k]), looks)
            assert read == min(2 * taken, there[row])
            steps = min(read, own[row]) + 2 * max(0, read - own[row])
            assert trace.macs[row] == steps * step + taken * answer
            stopped.add((row, taken))
        counted = effattack.audit(victim, QUERIES)
        assert torch.equal(counted.macs, trace.macs)
        torch.testing.assert_close(victim(QUERIES), trace.logits)
    assert len(stopped) > 5, "looks of all kinds"
    full = made(1.0)
    assert torch.equal(full.ceiling(QUERIES), full.trace(QUERIES).macs)
    assert full.max_macs == (1 + 2 * 4) * step + 3 * answer


def test_an_entity_without_edges_is_answered_by_its_own_vector() -> None:
    victim = made(1.0)
    alone = GRAPH.query("zoe", "owns")
    trace = victim.trace(alone)
    assert trace.also["edges"].item() == 0
    assert not trace.gates[0].reached.any()
    torch.testing.assert_close(victim(alone)[0], by_hand(victim, alone[0].tolist(), 0))


def test_a_batch_of_all_edges_is_refused() -> None:
    with pytest.raises(UsageError, match="every = 5 of at most 5 edges"):
        made(every=5)


def test_rows_of_a_leaf_stand_for_their_edges() -> None:
    """Lifted edges change nothing, and those of another edge make what that edge makes."""
    victim = made()
    other = QUERIES.clone()
    other[0, 2] = (1 * 4 + 0) * 8 + 5
    assert victim.domain.reach(other).hops[0, 2] == victim.domain.reach(QUERIES).hops[0, 2] == 1
    places = torch.full((4, 1), 2)
    leaf = victim.lift(other, places)
    rows = [victim.stages(QUERIES, leaf)[0], victim.stages(other)[0]]
    side = [int(batch[0, 2]) // 8 % 4 >= 2 for batch in (QUERIES, other)]
    assert side[0] == side[1], "both leave, or both come in"
    torch.testing.assert_close(*rows)


def test_the_fact_that_is_asked_for_is_never_in_its_neighbourhood() -> None:
    graph = Knowledge(GRAPH)
    asked = [question for fact in GRAPH.facts for question in graph.asked(fact)]
    queries, answers = graph.queries(asked)
    GRAPH.check(queries)
    for row, (head, step, answer, _) in zip(queries.tolist(), asked, strict=True):
        own = (head * 4 + step) * 8 + answer
        assert own not in row
        assert GRAPH.facing(own) not in row
    assert answers.tolist() == [question.answer for question in asked]
    others = graph.others(asked)
    assert others.nonzero().tolist() == [
        [row, entity]
        for row, (head, step, answer, _) in enumerate(asked)
        for entity in range(8)
        if entity != answer
        and ((head, step, entity) in GRAPH.facts or (entity, step - 2, head) in GRAPH.facts)
    ]


def test_shuffled_queries_hold_the_same_edges() -> None:
    found = shuffled(QUERIES, torch.Generator().manual_seed(0))
    GRAPH.check(found)
    assert torch.equal(found[:, 0], QUERIES[:, 0])
    for row, before in zip(found.tolist(), QUERIES.tolist(), strict=True):
        assert sorted(row) == sorted(before)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tr\tb\na r b\n", "line 2: 'a r b' is no triple"),
        ("", "has no triples"),
        ("a\t\tb\n", "line 1: .* is no triple"),
    ],
)
def test_files_that_hold_no_triples_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "graph.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        read_triples(path)


def test_triples_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    path.write_text("uk\tembassy in\tusa\nusa\ttreaty\tuk\n", encoding="utf-8")
    assert read_triples(path) == [("uk", "embassy in", "usa"), ("usa", "treaty", "uk")]
    with pytest.raises(UsageError, match="cannot be read"):
        read_triples(tmp_path / "none.txt")


def all_facts() -> set[tuple[str, str, str]]:
    found = families.split()
    return {*found.known, *found.heldout, *found.test}


def test_families_obey_their_rules() -> None:
    """Told by father, mother and marriage alone."""
    facts = all_facts()

    def of(relation: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for head, name, tail in facts:
            if name == relation:
                found.setdefault(head, set()).add(tail)
        return found

    father, mother, wife = of("father"), of("mother"), of("married to")
    for parents in (father, mother, wife):
        assert all(len(one) == 1 for one in parents.values())
    assert all(mother[child] == wife[next(iter(one))] for child, one in father.items())
    for side, parent in (("paternal", father), ("maternal", mother)):
        for which, parents in (("father", father), ("mother", mother)):
            expected = {
                child: parents[old]
                for child, (old,) in ((c, tuple(p)) for c, p in parent.items())
                if old in parents
            }
            assert of(f"{side} grand{which}") == expected
    brothers = {
        frozenset((one, other))
        for one in father
        for other in father
        if one != other and father[one] == father[other]
    }
    assert {frozenset(fact[::2]) for fact in facts if fact[1] == "sibling"} == brothers
    elder = {
        (c, o)
        for c in father
        for p in (*father[c], *mother[c])
        for o in father
        if frozenset((p, o)) in brothers
    }
    assert {fact[::2] for fact in facts if fact[1] in ("uncle", "aunt")} == elder


def test_every_question_has_one_answer_that_the_graph_does_not_know() -> None:
    graph, known = families.knowledge(), set(families.split().known)
    names = graph.domain.entities
    for which in ("heldout", "test"):
        for head, step, answer, fact in families.questions(which):
            triple = names[fact[0]], graph.domain.relations[fact[1]], names[fact[2]]
            assert triple in all_facts() - known
            assert answer not in graph.answers[head, step]
    assert not set(families.split().heldout) & set(families.split().test)


def test_the_card_of_family_links_agrees() -> None:
    victim, card = embedded_or_skip("family_links"), read_card("family_links")
    queries, answers = families.scored_questions()
    with torch.no_grad():
        trace, deployed = victim.trace(queries), victim(queries)
    right = (deployed.argmax(1) == answers).double().mean().item()
    assert right == pytest.approx(card["accuracy"], abs=1.01 / len(queries))
    assert card["accuracy"] >= 0.9 * card["dense_accuracy"]
    assert trace.macs.mean().item() == pytest.approx(card["clean_macs"], rel=5e-3)
    assert card["clean_macs"] <= 0.6 * card["mean_ceiling"]
    assert sum(p.numel() for p in victim.parameters()) == card["parameters"]
    turns = victim.transforms.turns
    assert torch.allclose(turns @ turns.mT, torch.eye(4).expand_as(turns), atol=2e-3)
