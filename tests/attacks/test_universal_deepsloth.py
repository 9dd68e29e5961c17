"""DeepSloth for all images, and for all images of a class."""

from __future__ import annotations

import pytest
import torch
from toys import LinearSaver, grey_images

from effattack.attacks import UniversalDeepSloth
from effattack.attacks.objectives import Goal, UniformExits
from effattack.errors import NotApplicable, UsageError
from effattack.victim import Victim


def unsure(victim: LinearSaver, images: torch.Tensor) -> float:
    """DeepSloth's objective, averaged."""
    with torch.no_grad():
        trace = victim.trace(images)
        return UniformExits()(trace, Goal(victim, trace.logits, trace.macs)).mean().item()


def test_it_learns_what_makes_exits_unsure() -> None:
    victim, images = LinearSaver(), grey_images(60)
    sides = victim.saver(images.flatten(1)).argmax(1)
    learn, fresh = images[:30], images[30:]
    attack = UniversalDeepSloth(victim, 6 / 255, per_class=True).fit(learn, sides[:30])
    found = attack(fresh, sides[30:])
    assert attack.perturbation is not None
    assert attack.perturbation.shape == (2, 1, 4, 4)
    assert unsure(victim, found) > unsure(victim, fresh)
    with torch.no_grad():
        assert victim.trace(found).macs.sum() > victim.trace(fresh).macs.sum()


def test_the_schedule_is_the_papers() -> None:
    victim, steps, paper = LinearSaver(), [], 0.03125
    attack = UniversalDeepSloth(victim, paper)
    attack.fit(grey_images(20), callback=steps.append)
    assert len(steps) == 20
    rule = attack.training.rule.begin(attack.threat)
    moved = rule(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), 0.5)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.005))


@pytest.mark.parametrize("threat", ["l2:0.5", "l1:1"])
def test_other_balls(threat: str) -> None:
    images = grey_images(10)
    attack = UniversalDeepSloth(LinearSaver(), threat=threat, epochs=3).fit(images)
    assert attack(images).shape == images.shape


def test_who_can_be_attacked(ats: Victim) -> None:
    with pytest.raises(NotApplicable, match="UniversalDeepSloth needs internal classifiers"):
        UniversalDeepSloth(ats)
    with pytest.raises(UsageError, match="works in linf, l2, l1"):
        UniversalDeepSloth(LinearSaver(), threat="patch:2")
