"""Training that is interrupted ends as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo.recipes.fitting import Optimiser, adamw, fit, mirrored, sgd, shifted

IMAGES = torch.rand(24, 3, 8, 8, generator=Generator().manual_seed(0))
LABELS = torch.arange(24) % 2


class Interrupted(Exception):
    pass


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))


def augmented(images: Tensor, generator: Generator) -> Tensor:
    return mirrored(shifted(images, 1, generator), generator)


def train(model: nn.Module, optimiser: Optimiser, checkpoint: Path, stop_at: int | None) -> None:
    """Three epochs of three steps, stopped by an exception in the given step."""
    calls = 0

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise Interrupted
        return F.cross_entropy(model(images), labels)

    fit(
        model,
        loss,
        (IMAGES, LABELS),
        augmented,
        epochs=3,
        rate=0.01,
        batch=8,
        optimiser=optimiser,
        checkpoint=checkpoint,
    )


@pytest.mark.parametrize("optimiser", [adamw, sgd])
@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_resumed_training_is_bit_identical(
    tmp_path: Path, optimiser: Optimiser, stop_at: int
) -> None:
    whole, broken, resumed = network(), network(), network()
    train(whole, optimiser, tmp_path / "whole.pt", None)
    with pytest.raises(Interrupted):
        train(broken, optimiser, tmp_path / "broken.pt", stop_at)
    train(resumed, optimiser, tmp_path / "broken.pt", None)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not whole.training


def test_shifts_and_mirroring_keep_pixels_and_shape() -> None:
    found = augmented(IMAGES, Generator().manual_seed(1))
    assert found.shape == IMAGES.shape
    assert not torch.equal(found, IMAGES)
    assert set(found.flatten().tolist()) <= set(IMAGES.flatten().tolist())
