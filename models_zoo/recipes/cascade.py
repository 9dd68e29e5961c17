"""Cascades: the models are trained apart, then thresholds are chosen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.cascade.cascade import saver_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.networks import base_cnn, tiny_cnn
from effattack.models_zoo.recipes.common import cross_entropy, fit
from effattack.models_zoo.recipes.early_exit import choose_threshold


def train_cascade() -> None:
    """Saver and base of TinySaver."""
    torch.manual_seed(0)
    saver, base = tiny_cnn(), base_cnn()
    fit(saver, cross_entropy(saver), epochs=40, rate=1e-2)
    fit(base, cross_entropy(base), epochs=20, rate=3e-3)
    name = "digits_tinysaver_cascade"
    save_weights(nn.ModuleList([saver, base]), WEIGHTS / f"{name}.safetensors")
    choose_threshold(name, embedded.digits_tinysaver_cascade, matched)


def three_stages() -> None:
    """Nothing to train: the models are those of other victims."""
    name = "digits_three_stage_cascade"
    choose_threshold(name, embedded.digits_three_stage_cascade, all_matched)


def train_esn() -> None:
    """The exits between saver and base, which stay as they are; 10 epochs, as in the paper.

    The loss is the official code's, Σ over exits of 2 (1 - saver's confidence) · cross-entropy. The
    official thresholds come from a search by another package (DyCE), which is not reproduced: here
    each is TinySaver's, matched accuracy on what that exit alone would answer.
    """
    torch.manual_seed(0)
    victim = embedded.digits_esn(trained=False)
    for part in (victim.saver, victim.stages, victim.head):
        part.requires_grad_(False)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        saver, *exits, _ = victim.stage_logits(images).unbind(1)
        doubt = 2 * (1 - saver.softmax(1).amax(1))
        return sum((doubt * F.cross_entropy(z, labels, reduction="none")).mean() for z in exits)

    fit(victim.sequence, loss, epochs=10, rate=5e-3)
    save_weights(victim.sequence, WEIGHTS / f"{victim.name}.safetensors")
    choose_threshold(victim.name, embedded.digits_esn, all_matched)


def matched(stage_logits: Tensor, labels: Tensor) -> float:
    """TinySaver's threshold for two stages: (B, 2, classes) and (B,) on held-out images."""
    return saver_threshold(stage_logits[:, 0], stage_logits[:, 1], labels)


def all_matched(stage_logits: Tensor, labels: Tensor) -> list[float]:
    """The same for every stage but the last, each against the last: (B, stages, classes)."""
    *cheaper, base = stage_logits.unbind(1)
    return [saver_threshold(stage, base, labels) for stage in cheaper]


RECIPES: dict[str, Callable[[], None]] = {
    "digits_tinysaver_cascade": train_cascade,
    "digits_three_stage_cascade": three_stages,
    "digits_esn": train_esn,
}
