"""Cascades."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from effattack.models_zoo import embedded
from effattack.models_zoo.cascade.cascade import saver_threshold
from effattack.models_zoo.digits import digits
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.networks import base_cnn, tiny_cnn
from effattack.models_zoo.recipes.common import accuracy, cross_entropy, describe, fit


def train_cascade() -> None:
    """Saver and base trained apart; the threshold by TinySaver's rule."""
    torch.manual_seed(0)
    saver, base = tiny_cnn(), base_cnn()
    fit(saver, cross_entropy(saver), epochs=40, rate=1e-2)
    fit(base, cross_entropy(base), epochs=20, rate=3e-3)
    name = "digits_tinysaver_cascade"
    save_weights(nn.ModuleList([saver, base]), WEIGHTS / f"{name}.safetensors")
    write_card(name, {"threshold": 1.0})
    victim = embedded.digits_tinysaver_cascade()
    saver, base = victim.models
    images, labels = digits("heldout")
    with torch.no_grad():
        threshold = saver_threshold(saver(images), base(images), labels)
    write_card(name, {"threshold": threshold})
    describe(
        embedded.digits_tinysaver_cascade(),
        recipe=name,
        dense_accuracy=accuracy(base, "test"),
        threshold=threshold,
    )


RECIPES: dict[str, Callable[[], None]] = {"digits_tinysaver_cascade": train_cascade}
