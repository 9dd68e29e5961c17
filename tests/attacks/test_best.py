"""Iterates rank by work, then safety, then what is asked, then value."""

from __future__ import annotations

import itertools

import torch
from toys import LinearSaver, grey_images

from effattack.attacks import QueryAttack, Slowdown
from effattack.attacks.objectives import BatchGoal
from effattack.attacks.searches.best import Best, Rank, unfinished


def test_the_first_that_differs_decides() -> None:
    all_of_them = list(itertools.product((1.0, 2.0), (False, True), (False, True), (0.0, 1.0)))
    pairs = list(itertools.product(all_of_them, all_of_them))
    mine, its = (
        Rank(*(torch.tensor(part) for part in zip(*side, strict=True)))
        for side in zip(*pairs, strict=True)
    )
    assert mine.above(its).tolist() == [one > other for one, other in pairs]


def test_what_does_not_count_never_wins_and_nothing_beats_the_unknown() -> None:
    value = torch.tensor([9.0, 9.0])
    best = Rank.of(torch.tensor([1.0, torch.nan]), torch.zeros(2))
    assert not Rank.of(torch.tensor([-torch.inf, 5.0]), value).above(best).any()


def test_rows_are_done_at_the_ceiling_alone() -> None:
    victim, clean = LinearSaver(), grey_images(4)
    goal = BatchGoal.of(victim, clean, None)
    best, rows = Best.none(clean), torch.arange(4)
    assert best.rank.work is not best.rank.value
    assert unfinished(best, rows, goal) is None
    sure = torch.tensor([True, True, True, False])
    full = torch.full((4,), victim.max_macs, dtype=torch.float64)
    best.update(rows, clean, Rank(full, sure, sure.roll(1), torch.zeros(4)))
    assert unfinished(best, rows, goal).tolist() == [True, False, False, True]
    assert unfinished(best, rows[1:3], goal).tolist() == [False, False]


def test_the_currency_of_the_victim_judges() -> None:
    victim, clean = LinearSaver(), grey_images(40)
    before = victim.trace(clean).macs
    assert (victim.trace(Slowdown(victim, 8 / 255)(clean)).macs > before).any()
    victim.spent = lambda trace: -trace.macs
    for attack in (Slowdown(victim, 8 / 255), QueryAttack(victim, 8 / 255, queries=20)):
        assert (victim.trace(attack(clean)).macs <= before).all()
