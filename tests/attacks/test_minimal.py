"""The smallest budget, against a victim for which it is known."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import nn
from toys import LinearSaver, grey_images

from effattack.attacks import MinimalBudget, build, eps50
from effattack.attacks.smallest.ladder import ladder
from effattack.errors import NotApplicable, UsageError
from effattack.threats import L0, L1, L2, Box, Linf, Patch
from effattack.victim import Opaque


def test_the_smallest_linf_budget_is_found_for_every_image() -> None:
    victim, images = LinearSaver(), grey_images(24)
    missing = victim.missing(images)
    attack = MinimalBudget(victim, 8 / 255, attack="Slowdown(steps=10)")
    found = attack(images)
    known = torch.tensor([victim.reach(level) for level in range(1, 9)])
    exact = (known[None] > missing[:, None]).int().argmax(1) + 1
    exact = torch.where(missing < 0, 0, exact).double() / 255
    exact[missing >= known[-1]] = math.inf
    assert attack.budgets is not None
    assert torch.allclose(attack.budgets.double(), exact, atol=1e-9)
    assert len(exact.unique()) > 3
    within = attack.budgets.isfinite()
    assert (victim.trace(found).macs[within] == victim.max_macs).all()
    size = (found - images).abs().flatten(1).amax(1)
    assert (size[within] <= attack.budgets[within] + 1e-6).all()


@pytest.mark.parametrize("threat", ["l2:1", "l1:4", "pixels:6", "patch:4@0,0"])
def test_one_rung_less_is_not_enough(threat: str) -> None:
    victim, images = LinearSaver(), grey_images(6)
    attack = MinimalBudget(victim, threat=threat, attack="Slowdown(steps=5)")
    found = attack(images)
    assert attack.budgets is not None
    for image, adversarial, size in zip(images, found, attack.budgets.tolist(), strict=True):
        rungs = [each for each in attack.ladder if each.eps <= size + 1e-9]
        if not rungs or math.isinf(size):
            continue
        assert rungs[-1].contains(adversarial[None], image[None]).all()
        if len(rungs) > 1:
            short = attack.make(rungs[-2])(image[None])
            assert victim.trace(short).macs < victim.max_macs


def test_half_of_the_savings_of_all_images() -> None:
    victim, images = LinearSaver(), grey_images(24)
    size = eps50(victim, images, largest="linf:8/255", attack="Slowdown(steps=10)")
    clean = victim.trace(images).macs.sum()
    half = (clean + len(images) * victim.max_macs) / 2

    def spent(eps: float) -> torch.Tensor:
        return victim.trace(build("Slowdown(steps=10)", victim, eps)(images)).macs.sum()

    assert spent(size) >= half
    assert spent(size - 1 / 255) < half
    assert eps50(victim, images, largest="linf:1/255", share=1.0) == math.inf
    assert eps50(LinearSaver(doubt=1e9), images) == 0


def test_ladders_end_at_the_largest_budget() -> None:
    for largest in (Linf(8 / 255), L2(2.0), L1(4.0, share=0.5), Patch(5), L0(7)):
        rungs = ladder(largest)
        sizes = [rung.eps for rung in rungs]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == pytest.approx(largest.eps)
        assert {type(rung) for rung in rungs} == {type(largest)}
    assert vars(ladder(L1(4.0, share=0.5))[0])["share"] == 0.5
    with pytest.raises(UsageError, match="no size"):
        ladder(Box())


def test_what_cannot_be_asked_for() -> None:
    victim = LinearSaver()
    with pytest.raises(UsageError, match="share"):
        MinimalBudget(victim, share=0)
    with pytest.raises(UsageError, match="leave the threat out"):
        MinimalBudget(victim, attack="Slowdown(threat='l2:1')")
    with pytest.raises(UsageError, match="cannot use the budget l2:1"):
        MinimalBudget(victim, threat="l2:1", attack="foolbox.LinfPGD")
    for share in (-1, 5):
        with pytest.raises(UsageError, match="share"):
            eps50(victim, grey_images(2), share=share)
    opaque = Opaque(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4))
    for ask in (MinimalBudget, lambda v: eps50(v, grey_images(2))):
        with pytest.raises(NotApplicable, match="declare max_macs; QueryAttack"):
            ask(opaque)


def test_modes_and_dtypes_of_the_caller_change_nothing() -> None:
    victim, images = LinearSaver(), grey_images(24)
    victim.saver = nn.Sequential(nn.Dropout(0.9), victim.saver)
    find = partial(eps50, victim, largest="linf:8/255", attack="Slowdown(steps=10)")
    expected = find(images)
    assert 0 < expected < math.inf
    victim.train()
    assert find(images.double()) == expected
    assert victim.training
