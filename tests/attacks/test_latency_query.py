"""Measured time as the oracle, with clocks whose readings are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from toys import LinearSaver, grey_images

from effattack.attacks import LatencyQuery, names
from effattack.errors import UsageError
from effattack.victim import Opaque


class Watched(nn.Module):
    """Remembers how much work its last call was."""

    def __init__(self) -> None:
        super().__init__()
        self.toy = LinearSaver()
        self.spent = 0.0

    def forward(self, images: Tensor) -> Tensor:
        self.spent = self.toy.trace(images).macs.sum().item()
        return self.toy(images)


class FakeClock:
    """Reads the work of the call, plus noise that may be larger than what is looked for."""

    name = "fake"

    def __init__(self, model: Watched, noise: float = 0.0, of_work: float = 1.0) -> None:
        self.model, self.noise, self.of_work = model, noise, of_work
        self.generator = Generator().manual_seed(0)

    def time(self, function: Callable[[], object]) -> float:
        function()
        luck = torch.rand((), generator=self.generator).item()
        return 100 + self.of_work * self.model.spent + self.noise * luck


def opaque(model: Watched) -> Opaque:
    return Opaque(model, (1, 4, 4), name="opaque")


def spent(images: Tensor) -> Tensor:
    return LinearSaver().trace(images).macs


@pytest.mark.parametrize("noise", [0.0, 30.0])
def test_it_finds_slow_images_by_time_alone(noise: float) -> None:
    model, images = Watched(), grey_images(4)
    attack = LatencyQuery(opaque(model), 16 / 255, queries=20, clock=FakeClock(model, noise))
    found = attack(images)
    assert spent(found).sum() > spent(images).sum()
    assert (spent(found) >= spent(images)).all()


def test_noise_alone_is_never_taken_for_a_result() -> None:
    model, images = Watched(), grey_images(4)
    clock = FakeClock(model, noise=100.0, of_work=0.0)
    found = LatencyQuery(opaque(model), queries=20, clock=clock)(images)
    assert (found != images).flatten(1).any(1).sum() <= 1


def test_the_same_readings_give_the_same_images() -> None:
    images, found = grey_images(3), []
    for _ in range(2):
        model = Watched()
        attack = LatencyQuery(opaque(model), 16 / 255, queries=10, clock=FakeClock(model, 5.0))
        found.append(attack(images))
    assert torch.equal(*found)


def test_a_clock_that_never_moves_finds_nothing() -> None:
    class Stopped:
        name = "stopped"

        def time(self, function: Callable[[], object]) -> float:
            function()
            return 0.0

    images = grey_images(2)
    victim = LinearSaver()
    assert torch.equal(LatencyQuery(victim, queries=3, clock=Stopped())(images), images)
    assert "LatencyQuery" in names()


def test_too_few_readings_are_refused() -> None:
    with pytest.raises(UsageError, match="no 95 % interval"):
        LatencyQuery(LinearSaver(), confirm=5)
