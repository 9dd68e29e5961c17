"""Accuracy attacks on all exits."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.attacks import PGDAvg, PGDMax, build
from effattack.attacks.objectives import Step
from effattack.errors import NotApplicable
from effattack.victim import Victim


def mean_entropy(victim: Victim, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        stages = victim.trace(images).stage_logits
    return torch.stack([F.cross_entropy(s, labels) for s in stages.unbind(1)]).mean()


@pytest.mark.parametrize("attack", [PGDAvg, PGDMax])
def test_the_deployed_answer_is_wrong_and_so_are_the_exits(
    attack: type[PGDAvg], early_exit: Victim, digit_images: Tensor, digit_labels: Tensor
) -> None:
    images, labels = digit_images[:6], digit_labels[:6]
    found = attack(early_exit, eps=12 / 255, steps=8)(images, labels)
    noise = build("noise", early_exit, 12 / 255)(images)
    with torch.no_grad():
        deployed = torch.cat([early_exit(image) for image in found.split(1)])
    assert (deployed.argmax(1) != labels).sum() >= 4
    entropy = partial(mean_entropy, early_exit, labels=labels)
    assert entropy(found) > 2 * entropy(noise) + 0.5


def test_max_attacks_every_exit_in_turn(early_exit: Victim, digit_images: Tensor) -> None:
    seen: list[Step] = []
    PGDMax(early_exit, steps=2)(digit_images[:1], callback=seen.append)
    stages = early_exit.trace(digit_images[:1]).stage_logits.shape[1]
    assert [step.restart for step in seen] == sorted([*range(stages)] * 3)


def test_the_clean_image_counts(early_exit: Victim, digit_images: Tensor) -> None:
    """An image that is wrong already, more than any iterate, stays as it is."""
    images = digit_images[:2]
    labels = (early_exit(images).argmax(1) + 1) % 10
    found = PGDAvg(early_exit, eps=1 / 255, steps=1)(images, labels)
    before, after = (mean_entropy(early_exit, x, labels) for x in (images, found))
    assert after >= before


def test_what_has_no_exits_is_told_what_applies(ats: Victim) -> None:
    with pytest.raises(NotApplicable, match=r"early-exit network or a cascade.*torchattacks.PGD"):
        PGDAvg(ats)
