"""Thresholds under attack are those that trying all of them finds."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_exits import EPS, own_exits, small_digits
from torch import Tensor
from toys import embedded

from effattack import Victim
from effattack.errors import ContractError, NotApplicable
from effattack.hardening import thresholds
from effattack.hardening.thresholds import Wanted, choose
from effattack.models_zoo.criteria import Confidence, Entropy, ScoreMargin
from effattack.threats import Linf

IMAGES, LABELS = (part[:80] for part in small_digits("heldout"))
ATTACKED = 12


def clean_of(victim: Victim, images: Tensor = IMAGES) -> Any:
    with torch.no_grad():
        return victim.trace(images)


@pytest.mark.parametrize("shipped", [0.9, (0.9, 0.6)])
def test_the_choice_is_the_best_of_all(shipped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every candidate runs through the victim's own trace, on all that the attacks found."""
    victim, found = own_exits(shipped), []
    monkeypatch.setattr(thresholds, "MOST", 400)

    class Recorded(thresholds.Slowdown):  # type: ignore[name-defined]
        def __call__(self, images: Tensor, *more: Any) -> Tensor:
            found.append(super().__call__(images, *more))
            return found[-1]

    monkeypatch.setattr(thresholds, "Slowdown", Recorded)
    clean = clean_of(victim)
    right = (clean.logits.argmax(1) == LABELS).double().mean().item()
    wanted = Wanted(right - 0.03, clean.macs.mean().item(), 0.1)
    choice = choose(
        victim, IMAGES, LABELS, Linf(EPS).on(victim.domain), wanted, attacked=ATTACKED, seed=3
    )
    assert choice is not None
    assert victim.criterion.thresholds == choice.thresholds
    assert choice.rounds == len(found) >= 1

    grid = [k / 100 for k in range(1, 100)] if shipped == 0.9 else [k / 20 for k in range(1, 20)]
    each = grid if shipped == 0.9 else product(grid, grid)
    by_hand = own_exits(shipped)
    least = float("inf")
    for candidate in [*each, shipped]:
        by_hand.criterion.thresholds = candidate
        clean = clean_of(by_hand)
        if (clean.logits.argmax(1) == LABELS).double().mean() < wanted.accuracy - 1e-9:
            continue
        if clean.macs.mean() > wanted.work or clean.gates[0].active.double().mean() < 0.1:
            continue
        worst = clean.macs[:ATTACKED]
        for images in found:
            worst = worst.maximum(clean_of(by_hand, images).macs)
        least = min(least, worst.mean().item())
    assert choice.attacked == pytest.approx(least)


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)), st.sampled_from([Confidence, Entropy]))
@settings(max_examples=25, deadline=None)
def test_outcomes_are_what_the_victim_does(pair: tuple[float, float], kind: Any) -> None:
    victim = own_exits()
    victim.criterion = rule = kind((0.5, 0.5))
    structure: Any = victim.structure()
    spent = torch.tensor(structure.costs, dtype=torch.float64)
    stages = thresholds._stages(victim, structure, IMAGES)
    found = thresholds.outcomes(rule, [pair], stages, spent, LABELS)
    assert rule.thresholds == (0.5, 0.5)
    rule.thresholds = pair
    clean = clean_of(victim)
    assert torch.equal(found.work[0], clean.macs)
    assert torch.equal(found.right[0], clean.logits.argmax(1) == LABELS)
    assert torch.equal(found.onward[0], clean.gates[0].active[:, 0])


@pytest.mark.parametrize("kind", [Confidence, Entropy, ScoreMargin])
def test_candidates_reach_from_all_to_none(kind: Any) -> None:
    said = clean_of(own_exits()).stage_logits
    found = list(thresholds.candidates_of(kind(0.5), said))
    assert found == sorted(found)
    assert 0.5 in found
    open_at = [kind(threshold).go_on(said[:, :1]).sum().item() for threshold in found]
    assert min(open_at) <= 8
    assert max(open_at) >= 76
    assert len(set(open_at)) > 5


def test_nothing_is_changed_where_nothing_is_good_enough() -> None:
    victim = own_exits()
    threat = Linf(EPS).on(victim.domain)
    assert choose(victim, IMAGES, LABELS, threat, Wanted(1.1, 1e9), attacked=4) is None
    assert victim.criterion.thresholds == 0.9


def test_work_that_is_not_that_of_the_stages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    victim = own_exits()
    said = victim.structure()
    cheaper = said._replace(costs=(said.costs[0] - 9, *said.costs[1:]))
    monkeypatch.setattr(victim, "structure", lambda: cheaper)
    with pytest.raises(ContractError, match="its trace does other work than structure"):
        choose(victim, IMAGES, LABELS, Linf(EPS).on(victim.domain), Wanted(0, 1e9), attacked=1)


def test_of_several_rules_those_with_thresholds(ats: Victim) -> None:
    assert thresholds.rule_of(embedded("digits_esn")) is not None
    assert thresholds.rule_of(ats) is None
    with pytest.raises(NotApplicable, match="digits_vit_ats shows no thresholds"):
        thresholds.expect_thresholds(ats)
