"""Early exits: all classifiers are trained together, then confidence thresholds are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.digits import digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, load_weights, save_weights, write_card
from effattack.models_zoo.networks import exit_stages
from effattack.models_zoo.recipes.common import Loss, accuracy, describe, fit
from effattack.victim import Victim

Rule = Callable[[Tensor, Tensor], float | list[float]]
"""Held-out logits (B, stages, classes) and labels (B,) -> confidence thresholds."""


def train_early_exit() -> None:
    """A small convolutional network (SDN, section 4)."""
    torch.manual_seed(0)
    stages, heads = exit_stages()
    modules = nn.ModuleList([*stages, *heads])
    fit(modules, all_exits(stages, heads), epochs=30, rate=5e-3)
    save_weights(modules, WEIGHTS / "digits_cnn_early_exit.safetensors")
    choose_threshold("digits_cnn_early_exit", embedded.digits_cnn_early_exit, lowest_threshold)


def train_exit_vit() -> None:
    """Classifiers on the CLS token of ``digits_vit``, which is trained on with them."""
    torch.manual_seed(0)
    victim = embedded.digits_vit_exit(trained=False)
    load_weights(victim.vit, WEIGHTS / "digits_vit.safetensors")
    train_victim(victim, embedded.digits_vit_exit, epochs=12, rate=1e-3)


def train_sdn() -> None:
    """A small VGG in SDN's form."""
    torch.manual_seed(0)
    victim = embedded.digits_cnn_sdn(trained=False)
    train_victim(victim, embedded.digits_cnn_sdn, epochs=30, rate=5e-3)


def train_msdnet() -> None:
    """A narrow multi-scale dense network."""
    torch.manual_seed(0)
    victim = embedded.digits_msdnet(trained=False)
    train_victim(victim, embedded.digits_msdnet, epochs=20, rate=5e-3, rule=budgeted_thresholds)


def train_victim(
    victim: EarlyExit,
    factory: Callable[[], EarlyExit],
    *,
    epochs: int,
    rate: float,
    rule: Rule | None = None,
) -> None:
    """Train an early-exit victim as it is, store it, and choose its threshold."""
    fit(victim, all_exits(victim.stages, victim.heads), epochs=epochs, rate=rate)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    choose_threshold(victim.name, factory, rule or lowest_threshold)


def all_exits(stages: Iterable[nn.Module], heads: Iterable[nn.Module]) -> Loss:
    """The cross-entropy of every classifier, weighted equally."""
    pairs = list(zip(stages, heads, strict=True))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        total, features = images.new_zeros(()), images
        for stage, head in pairs:
            features = stage(features)
            total = total + F.cross_entropy(head(features), labels)
        return total

    return loss


def choose_threshold(name: str, factory: Callable[[], Victim], rule: Rule) -> None:
    """Choose the thresholds of stored weights on held-out images, and write the card."""
    write_card(name, {"threshold": 1.0})
    victim = factory()
    images, labels = digits("heldout")
    with torch.no_grad():
        stage_logits = victim.trace(images).stage_logits
    assert stage_logits is not None
    threshold = rule(stage_logits, labels)
    write_card(name, {"threshold": threshold})
    describe(
        factory(),
        recipe=name,
        dense_accuracy=accuracy(lambda x: last_stage(victim, x), "test"),
        threshold=threshold,
    )


def last_stage(victim: Victim, images: Tensor) -> Tensor:
    """Logits of the final classifier, whatever exit would be taken."""
    stage_logits = victim.trace(images).stage_logits
    assert stage_logits is not None
    return stage_logits[:, -1]


def budgeted_thresholds(stage_logits: Tensor, labels: Tensor, q: float = 0.5) -> list[float]:
    """MSDNet's rule for budgeted batches: a share proportional to qᵏ leaves at exit k.

    The first exit alone is as accurate on digits as the last one, so that the lowest threshold
    would ask nobody.

    Args:
        stage_logits: (B, stages, classes) on held-out images.
        labels: (B,), which this rule does not look at.
    """
    confidence = stage_logits.double().softmax(2).amax(2)
    shares = q ** torch.arange(confidence.shape[1], dtype=torch.float64)
    thresholds: list[float] = []
    for k in range(confidence.shape[1] - 1):
        here = confidence[:, k]
        threshold = here.quantile(1 - shares[k] / shares[k:].sum()).item()
        thresholds.append(threshold)
        confidence = confidence[here < threshold]
    return thresholds


RECIPES: dict[str, Callable[[], None]] = {
    "digits_cnn_early_exit": train_early_exit,
    "digits_vit_exit": train_exit_vit,
    "digits_cnn_sdn": train_sdn,
    "digits_msdnet": train_msdnet,
}
