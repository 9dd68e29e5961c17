"""DeepSloth starts where its authors start."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor
from toys import SHAPE, LinearSaver, grey_images, noise_images

from effattack.attacks import DeepSloth, UniversalDeepSloth
from effattack.budgets import LEVELS
from effattack.victim import Trace

FLOAT32 = 1e-6


class Watched(LinearSaver):
    """Remembers what it was shown under gradients: the iterates of a search."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def trace(self, images: Tensor) -> Trace:
        if images.requires_grad:
            self.seen.append(images.detach().clone())
        return super().trace(images)


def first(attack: DeepSloth, clean: Tensor, seed: int) -> Tensor:
    return attack.search.first(clean, attack.threat, Generator().manual_seed(seed))


@given(seed=st.integers(0, 2**31), levels=st.floats(1, 64), step=st.floats(1e-4, 0.5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_start_lies_within_one_step_of_the_clean_image(
    seed: int, levels: float, step: float
) -> None:
    attack = DeepSloth(LinearSaver(), levels / LEVELS, step_size=step)
    grey, noise = grey_images(3, seed), noise_images(3, seed, SHAPE)
    for images in (grey, noise, noise.round()):
        start = first(attack, images, seed)
        assert (start - images).abs().max() <= min(step, attack.eps) + FLOAT32
        assert start.min() >= 0
        assert start.max() <= 1
        assert torch.equal(start, first(attack, images, seed))
    assert not torch.equal(first(attack, grey, seed), first(attack, grey, seed + 1))


def test_the_start_is_uniform_in_one_step_of_the_paper() -> None:
    grey = torch.full((200, 1, 8, 8), 0.5)
    change = first(DeepSloth(LinearSaver()), grey, 0) - grey
    assert abs(change.mean()) < 1e-4
    assert abs(change.std() - 0.002 / math.sqrt(3)) < 2e-5


@pytest.mark.parametrize("seed", range(4))
def test_iterates_leave_from_there_and_stay_in_the_ball(seed: int) -> None:
    victim = Watched()
    images = grey_images(20, seed)
    clean = images[victim.missing(images).argmax()][None]  # its gate stays shut
    DeepSloth(victim, 3 / 255, seed=seed)(clean)
    away = [(seen - clean).abs().max().item() * LEVELS for seen in victim.seen]
    assert len(away) == 30
    assert away[0] <= 1 + 1e-3, "a step of half a level, on the grid"
    assert 2 < max(away) <= 3 + 1e-3


@pytest.mark.parametrize("threat", ["l2:0.5", "l1:4"])
def test_other_balls_are_started_far_from_the_clean_image(threat: str) -> None:
    grey = torch.full((4, 3, 32, 32), 0.5)
    attack = DeepSloth(LinearSaver(), threat=threat)
    change = (first(attack, grey, 0) - grey).flatten(1)
    length = change.norm(p=2 if threat.startswith("l2") else 1, dim=1)
    assert (length > 0.99 * attack.eps).all()
    assert (length <= attack.eps * (1 + 1e-5)).all()


def test_the_universal_one_starts_anywhere_in_the_ball() -> None:
    attack = UniversalDeepSloth(LinearSaver(), 8 / 255)
    start = attack.first((200, 1, 8, 8), Generator().manual_seed(0))
    assert start.abs().max() <= attack.eps + FLOAT32
    assert abs(start.mean()) < 1e-3
    assert abs(start.std() - attack.eps / math.sqrt(3)) < 1e-3
