"""CIFAR-10: a ResNet with its internal classifiers, savers, a ViT, and an A-ViT made of it.

The data come from the folder that ``EFFATTACK_CIFAR10`` names. Training runs on a GPU where there
is one, and goes on from the checkpoints that it leaves in ``EFFATTACK_CHECKPOINTS`` (default:
``checkpoints/``).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo import photographs
from effattack.models_zoo.cascade.search import search_saver
from effattack.models_zoo.cifar10 import cifar10
from effattack.models_zoo.early_exit.sdn import SDN
from effattack.models_zoo.files import WEIGHTS, save_weights, with_weights, write_card
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.cards import BATCH, describe, share_right
from effattack.models_zoo.recipes.early_exit import lowest_threshold
from effattack.models_zoo.recipes.fitting import Loss, Optimiser, adamw, mirrored, sgd, shifted
from effattack.victim import Victim

SMOOTHING = 0.1
SAVER_WIDTHS = (8, 12, 16)
PONDER_WEIGHT = 0.005
"""α_p of A-ViT: two epochs lose no accuracy at 94 % of the MACs; with 0.01, nine points at 43 %."""


def train_sdn() -> None:
    """All classifiers together, in a long and a short cycle; an internal one counts as much as its
    share of the depth.

    (SDN, section 4.2: the weights keep the early classifiers from ruling the shared layers.)
    Convolutions run in bfloat16.
    """
    torch.manual_seed(0)
    victim = photographs.cifar10_sdn(trained=False)
    loss = in_bfloat16(partial(weighted_exits, victim))
    fit(victim, loss, f"{victim.name}_first", epochs=18, rate=0.2, optimiser=sgd)
    fit(victim, loss, victim.name, epochs=5, rate=0.05, optimiser=sgd)
    store(victim, victim.name)
    choose_sdn_threshold()


def choose_sdn_threshold() -> None:
    """The lowest one that costs at most a point of accuracy on held-out images."""
    name = "cifar10_sdn"
    victim = with_weights(photographs.cifar10_sdn(trained=False), name)
    images, labels = floats("heldout")
    with torch.no_grad():
        stage_logits = torch.cat([victim.trace(x).stage_logits for x in images.split(BATCH)])
    threshold = lowest_threshold(stage_logits, labels, drop=0.01)
    write_card(name, {"threshold": threshold})
    finish(photographs.cifar10_sdn, photographs.cifar10_resnet(), threshold=threshold)


def weighted_exits(victim: SDN, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the final classifier, plus that of classifier k times k / stages."""
    total, features = images.new_zeros(()), images
    for depth, (stage, head) in enumerate(zip(victim.stages, victim.heads, strict=True), start=1):
        features = stage(features)
        share = depth / len(victim.stages)
        total = total + share * F.cross_entropy(head(features).float(), labels)
    return total


def train_saver(width: int) -> None:
    """A candidate saver by itself."""
    torch.manual_seed(0)
    saver, name = photographs.cifar10_saver(width, trained=False), f"cifar10_saver_{width}"
    loss = in_bfloat16(partial(classified, saver))
    fit(saver, loss, name, epochs=12, rate=1e-2)
    store(saver, name)


def choose_saver() -> None:
    """TinySaver's search among the savers, for the ResNet.

    Its threshold, matched accuracy, is lowered until a point is lost on held-out images: the
    paper's savers are better than these.
    """
    savers = {str(width): photographs.cifar10_saver(width) for width in SAVER_WIDTHS}
    base, (images, labels) = photographs.cifar10_resnet(), floats("heldout")
    cascade, table = search_saver({**savers, "base": base}, "base", images, labels)
    print(table.to_string())
    if cascade is None:
        raise UsageError("no saver saves: train the savers for longer")
    with torch.no_grad():
        stage_logits = torch.cat([cascade.trace(x).stage_logits for x in images.split(BATCH)])
    threshold = lowest_threshold(stage_logits, labels, drop=0.01)
    facts: dict[str, Any] = {"threshold": threshold, "saver_width": int(table.iloc[0].saver)}
    write_card("cifar10_tinysaver_cascade", facts)
    finish(photographs.cifar10_tinysaver_cascade, base, **facts)


def train_vit() -> None:
    """The plain ViT, in a long and a short cycle."""
    torch.manual_seed(0)
    vit = photographs.cifar10_vit(trained=False)
    loss = partial(classified, vit)
    fit(vit, loss, "cifar10_vit_first", epochs=9, rate=1e-3)
    fit(vit, loss, "cifar10_vit", epochs=4, rate=7e-4)
    store(vit, "cifar10_vit")
    for factory in (photographs.cifar10_vit_ats, photographs.cifar10_vit_int8):
        finish(factory, photographs.cifar10_vit(), recipe="cifar10_vit")


def train_avit() -> None:
    """The ViT trained on with α_p times A-ViT's mean ponder, without its prior on the depth."""
    victim = photographs.cifar10_vit_avit(trained=False)
    victim.vit.load_state_dict(photographs.cifar10_vit().state_dict())

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        trace = victim.trace(images)
        loss = F.cross_entropy(trace.logits, labels, label_smoothing=SMOOTHING)
        return loss + PONDER_WEIGHT * trace.aux["ponder"].mean()

    fit(victim, loss, victim.name, epochs=2, rate=5e-4)
    store(victim, victim.name)
    finish(photographs.cifar10_vit_avit, photographs.cifar10_vit())


def classified(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with smoothed labels."""
    return F.cross_entropy(model(images).float(), labels, label_smoothing=SMOOTHING)


def in_bfloat16(loss: Loss) -> Loss:
    """Channels last and mixed precision: 2.5 times as fast for small convolutions on a CPU."""

    def mixed(images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            return loss(images.to(memory_format=torch.channels_last), labels)

    return mixed


def fit(
    model: nn.Module,
    loss: Loss,
    name: str,
    *,
    epochs: int,
    rate: float,
    optimiser: Optimiser = adamw,
) -> None:
    """Train on CIFAR-10 with shifts and mirroring; checkpoints are kept under the name."""
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    checkpoints = Path(os.environ.get("EFFATTACK_CHECKPOINTS", "checkpoints"))
    checkpoints.mkdir(parents=True, exist_ok=True)
    print(name)
    fitting.fit(
        model,
        loss,
        cifar10("train"),
        _augmented,
        epochs=epochs,
        rate=rate,
        batch=128,
        optimiser=optimiser,
        checkpoint=checkpoints / f"{name}.pt",
    )


def store(model: nn.Module, name: str) -> None:
    """Write the weights that the zoo ships."""
    save_weights(model, WEIGHTS / f"{name}.safetensors")


def finish(
    factory: Callable[[], Victim],
    base: nn.Module,
    *,
    recipe: str | None = None,
    **facts: Any,
) -> None:
    """The card of a trained victim beside its dense base."""
    victim, (images, labels) = factory(), floats("test")
    describe(
        victim,
        images,
        labels,
        data="CIFAR-10: 45,000 training, 5,000 held-out, "
        f"{len(labels):,} test images (effattack.models_zoo.cifar10)",
        recipe=recipe or victim.name,
        dense_accuracy=share_right(base, images, labels),
        **facts,
    )


def floats(split: str) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and labels of a split."""
    levels, labels = cifar10(split)
    return levels.float() / 255, labels


def _augmented(levels: Tensor, generator: Generator) -> Tensor:
    return mirrored(shifted(levels.float() / 255, 4, generator), generator)


RECIPES: dict[str, Callable[[], None]] = {
    "cifar10_sdn": train_sdn,
    **{f"cifar10_saver_{width}": partial(train_saver, width) for width in SAVER_WIDTHS},
    "cifar10_tinysaver_cascade": choose_saver,
    "cifar10_vit": train_vit,
    "cifar10_vit_ats": train_vit,
    "cifar10_vit_int8": train_vit,
    "cifar10_vit_avit": train_avit,
}
