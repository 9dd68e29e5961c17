"""What the recipes on digits share: their training, and the card of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo.digits import digits
from effattack.models_zoo.recipes import cards, fitting
from effattack.models_zoo.recipes.cards import share_right
from effattack.models_zoo.recipes.fitting import Loss, shifted
from effattack.victim import Victim


def fit(model: nn.Module, loss: Loss, *, epochs: int, rate: float) -> None:
    """Train on the digits, each moved by up to three pixels."""
    fitting.fit(model, loss, digits("train"), moved, epochs=epochs, rate=rate)


def moved(images: Tensor, generator: Generator) -> Tensor:
    """Every image moved by up to three pixels."""
    return shifted(images, 3, generator)


def cross_entropy(model: nn.Module, smoothing: float = 0.0) -> Loss:
    """Cross-entropy of one classifier, labels smoothed by a share."""
    return lambda images, labels: F.cross_entropy(model(images), labels, label_smoothing=smoothing)


def straight_through(value: Tensor, threshold: float) -> Tensor:
    """1 where the value exceeds the threshold, else 0, with the gradient of the value."""
    return (value > threshold).to(value.dtype) + value - value.detach()


def accuracy(model: Callable[[Tensor], Tensor], split: str) -> float:
    """Top-1 accuracy on a split of the digits."""
    return share_right(model, *digits(split))


def describe(
    victim: Victim,
    *,
    recipe: str,
    dense_accuracy: float,
    threshold: float | list[float] | None = None,
    **facts: Any,
) -> None:
    """The card of a victim trained on the digits, with whatever else is to stand on it."""
    cards.describe(
        victim,
        *digits("test"),
        data="scikit-learn digits enlarged to 3 x 32 x 32: 1197 training, 300 held-out, "
        "300 test images (effattack.models_zoo.digits)",
        recipe=recipe,
        dense_accuracy=dense_accuracy,
        threshold=threshold,
        **facts,
    )
