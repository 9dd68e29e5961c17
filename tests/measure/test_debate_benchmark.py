"""``benchmarks/debate.py``: who brings what, how many arguments are heard, and that labels hold."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from effattack import audit
from effattack.errors import UsageError
from effattack.models_zoo.criteria import Confidence
from effattack.models_zoo.graphs import families
from effattack.results.selfchecks import check_victim
from effattack.threats import parse_threat

FACTS = [
    *(("a", "r", "b"), ("c", "s", "a"), ("b", "s", "d"), ("c", "r", "e")),
    *(("f", "r", "g"), ("g", "s", "a"), ("d", "r", "f")),
]


@pytest.fixture(scope="module")
def debating() -> ModuleType:
    """The script as a module; its own folder is on the path when it runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import debate

        return debate


def small(debating: ModuleType, threshold: float, most: int = 3) -> Any:
    """An untrained debate about few letters."""
    torch.manual_seed(0)
    domain = debating.Claims(FACTS, 6)
    entities = torch.randn(len(domain.entities), 2, 2)
    return debating.Debate(entities, domain, Confidence(threshold), most)


def claim(victim: Any, head: str, tail: str, edges: list[tuple[str, str, str]]) -> Tensor:
    query = victim.domain.query(head, "r", edges)
    row = victim.domain.claims(query, torch.tensor([victim.domain.entities.index(tail)]))
    assert isinstance(row, Tensor)
    return row


@pytest.mark.parametrize(("edges", "heard"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_a_judge_who_is_never_sure_hears_all_up_to_the_cap(
    debating: ModuleType, edges: int, heard: int
) -> None:
    victim = small(debating, 1.0)
    found = audit(victim, claim(victim, "a", "f", FACTS[:edges]))
    assert found.counts["arguments"].tolist() == [heard]
    looked, spoken = 3 * victim.words.embedding_dim + 2, max(heard, 1)
    width = victim.opens.out_features
    agents, hears = edges * (looked + 2) * width, heard * (looked + 1 + width) * width
    assert found.macs.item() == victim.opens.in_features * width + agents + hears + spoken * width


@pytest.mark.parametrize("odds", [-9.0, 9.0])
def test_a_judge_who_is_sure_at_once_hears_one_argument(debating: ModuleType, odds: float) -> None:
    victim = small(debating, 0.99)
    last = victim.judges[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, odds)
    found = audit(victim, claim(victim, "a", "f", FACTS[:4]))
    assert found.counts["arguments"].tolist() == [1]
    assert found.logits.argmax(1).tolist() == [int(odds > 0)]
    torch.testing.assert_close(found.logits[:, 1] - found.logits[:, 0], torch.tensor([odds]))


@given(seed=st.integers(0, 10**6), paths=st.integers(0, 6), most=st.integers(2, 5))
def test_agents_in_turn_bring_the_highest_that_is_left(
    debating: ModuleType, seed: int, paths: int, most: int
) -> None:
    victim, dice = small(debating, 0.9, most), torch.Generator().manual_seed(seed)
    scores = torch.rand(1, 6, 2, generator=dice)
    there = torch.zeros(1, 6, dtype=torch.bool)
    there[0, torch.randperm(6, generator=dice)[:paths]] = True
    places, brought = victim.brought(scores, there)
    left, expected = set(there[0].nonzero().flatten().tolist()), []
    for turn in range(min(most, paths)):
        expected.append(max(left, key=lambda place: scores[0, place, turn % 2].item()))
        left.remove(expected[-1])
    assert places[brought].tolist() == expected


def test_paths_are_of_one_edge_or_two_from_the_head(debating: ModuleType) -> None:
    victim = small(debating, 0.9)
    domain = victim.domain
    found = victim.paths(claim(victim, "a", "f", FACTS[:4]))
    r, s = (domain.relations.index(name) for name in "rs")
    named = {
        (int(first), int(second), domain.entities[int(end)])
        for first, second, end in zip(*(part[found.there] for part in found[:3]), strict=True)
    }
    back, none = s + len(domain.relations), domain.steps
    assert named == {(r, none, "b"), (back, none, "c"), (r, s, "d"), (back, r, "e")}


def test_every_argument_that_is_heard_is_counted(debating: ModuleType) -> None:
    batch = debating.claims("test", seed=0)[0][::20]
    torch.manual_seed(1)
    domain = debating.domain()
    victim = debating.Debate(torch.randn(len(domain.entities), 8, 4), domain, Confidence(1.0))
    sure = victim.stages(batch)[:, 0].softmax(1).amax(1)
    victim.criterion = Confidence(sure.median().item())
    check_victim(victim, batch)
    rows: list[int] = []
    victim.hears.register_forward_hook(lambda _, given, out: rows.append(len(out)))
    heard = []
    for single in batch:
        rows.clear()
        victim(single[None])
        heard.append(sum(rows))
    told = victim.trace(batch).also["arguments"]
    assert told.tolist() == heard
    assert len(set(heard)) > 1


@pytest.mark.parametrize("which", ["heldout", "test"])
def test_labels_follow_from_the_rules(debating: ModuleType, which: str) -> None:
    found = families.split()
    true = {*found.known, *found.heldout, *found.test}
    batch, right = debating.claims(which, seed=3)
    domain = debating.domain()
    ends = {(step, far) for (_, step), some in debating.knowledge().answers.items() for far in some}
    for row, label in zip(batch, right.tolist(), strict=True):
        near, step, far = (int(part) for part in domain.edges(row[0]))
        head, tail = domain.entities[near], domain.entities[far]
        relation = domain.relations[step % len(domain.relations)]
        said = (head, relation, tail) if step < len(domain.relations) else (tail, relation, head)
        assert (said in true) == bool(label)
        assert label or (step, far) in ends
        assert said not in found.known
    assert right.double().mean() == 0.5


def test_edges_to_the_tail_keep_to_the_budget_and_never_cost_less(debating: ModuleType) -> None:
    victim = small(debating, 0.52)
    victim.double()
    batch = claim(victim, "a", "f", FACTS[:4])
    threat = parse_threat("edges:2").on(victim.domain)
    found = debating.to_the_tail(debating.AsHeard.of(victim), batch, threat)
    assert threat.contains(found, batch).all()
    new = [int(word) for word in found[0, 1:] if word >= 0 and word not in batch]
    assert new
    assert {int(victim.domain.edges(word).far) for word in new} == {5}
    assert int(batch[0, 0]) not in new
    before, after = (victim.trace(some).also["arguments"].item() for some in (batch, found))
    assert after >= before


def test_the_debate_as_attacks_see_it_costs_arguments(debating: ModuleType) -> None:
    victim = small(debating, 0.52)
    batch = claim(victim, "a", "f", FACTS[:4])
    seen = debating.AsHeard.of(victim)
    assert torch.equal(seen.trace(batch).macs, victim.trace(batch).also["arguments"])
    assert seen.ceiling(batch).tolist() == [3]


def test_a_claim_of_strangers_is_refused(debating: ModuleType) -> None:
    victim = small(debating, 0.9)
    row = claim(victim, "a", "f", FACTS[:2])
    row[0, 0] = len(victim.domain.entities) ** 2 * victim.domain.steps
    with pytest.raises(UsageError, match="graph"):
        victim.domain.check(row)


@pytest.mark.slow
def test_it_is_trained_the_same_each_time(
    debating: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debating, "EPOCHS", 1)
    before = torch.random.get_rng_state()
    first, second = (debating.debate.__wrapped__() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name])
    assert first.criterion.thresholds == second.criterion.thresholds
