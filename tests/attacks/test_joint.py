"""Slow and wrong at once."""

from __future__ import annotations

import torch
from toys import LinearSaver, grey_images

from effattack.attacks import SlowAndWrong, Slowdown
from effattack.attacks.objectives import AlsoAnswer, Goal, MarginHinge, label_trails


def test_whatever_does_more_work_is_also_wrong() -> None:
    victim, images = LinearSaver(), grey_images(40)
    labels = victim(images).argmax(1)
    trace = victim.trace(SlowAndWrong(victim, 16 / 255)(images, labels))
    slow = trace.macs > victim.trace(images).macs
    assert slow.any()
    assert (trace.logits.argmax(1) != labels)[slow].all()


def test_it_finds_more_of_both_than_an_attack_on_the_work_alone() -> None:
    victim, images = LinearSaver(), grey_images(40)
    labels = victim(images).argmax(1)

    def both(attack: Slowdown | SlowAndWrong) -> int:
        trace = victim.trace(attack(images, labels))
        slow = trace.macs > victim.trace(images).macs
        return int((slow & (trace.logits.argmax(1) != labels)).sum())

    assert both(SlowAndWrong(victim, 32 / 255)) > both(Slowdown(victim, 32 / 255))


def test_images_that_do_the_most_as_they_are_are_made_wrong_too() -> None:
    victim, images = LinearSaver(), grey_images(60)
    with torch.no_grad():
        trace = victim.trace(images)
    open_ = trace.macs == victim.max_macs
    found = SlowAndWrong(victim, 64 / 255)(images[open_], trace.logits.argmax(1)[open_])
    with torch.no_grad():
        after = victim.trace(found)
    wrong = after.logits.argmax(1) != trace.logits.argmax(1)[open_]
    assert (wrong & (after.macs == victim.max_macs)).float().mean() > 0.5


def test_the_objective_rewards_a_wrong_answer_up_to_kappa() -> None:
    victim, images = LinearSaver(), grey_images(6)
    trace = victim.trace(images)
    right = trace.logits.argmax(1)
    goals = [Goal(victim, trace.logits, labels) for labels in (right, 1 - right)]
    slow = MarginHinge()(trace, goals[0])
    both = AlsoAnswer(MarginHinge(), label_trails, 2.0, 0.05)
    loses, wins = (both(trace, goal) - slow for goal in goals)
    assert (loses < 0).all()
    assert torch.allclose(wins, torch.full_like(wins, 0.1))
