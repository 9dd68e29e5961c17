"""Watched machines: modalities are trained apart, one threshold is chosen on held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effattack.models_zoo.exits import lowest_threshold
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.multimodal.gated import Modality, ModalityCascade
from effattack.models_zoo.multimodal.machine_watch import (
    machine_watch,
    machine_watch_without_camera,
    machine_watch_without_vibration,
)
from effattack.models_zoo.multimodal.machines import (
    CAMERA,
    VIBRATION,
    scored_pictures,
    scored_vibrations,
    watched,
)
from effattack.models_zoo.recipes import cards, fitting
from effattack.models_zoo.recipes.early_exit import all_exits, last_stage

RATE = 5e-3
EPOCHS = {VIBRATION: 30, CAMERA: 20}


def train_machine_watch() -> None:
    """The cross-entropy of all classifiers of each modality, then one threshold for all."""
    torch.manual_seed(0)
    victim = machine_watch(trained=False)
    batch, labels = watched("train")
    for part, epochs in EPOCHS.items():
        own: Any = victim.modalities[part]
        data = batch[part], labels
        fitting.fit(own, each_exit(own), data, AUGMENTED[part], epochs=epochs, rate=RATE)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    held, truth = watched("heldout")
    with torch.no_grad():
        threshold = lowest_threshold(victim.said(held), truth)
    write_card(victim.name, {"threshold": threshold})
    test, truth = watched("test")
    alone = {
        "without_camera": (machine_watch_without_camera(), *scored_vibrations()),
        "without_vibration": (machine_watch_without_vibration(), *scored_pictures()),
    }
    cards.describe(
        machine_watch(),
        test,
        truth,
        data="machines by rule: 3600 training, 600 held-out, 300 test machines "
        "(effattack.models_zoo.multimodal.machines)",
        recipe=victim.name,
        dense_accuracy=cards.share_right(lambda some: last_stage(victim, some), test, truth),
        threshold=threshold,
        **{what: judged(*given) for what, given in alone.items()},
    )


def each_exit(modality: Modality) -> fitting.Loss:
    """The loss of one modality on its own part."""
    loss = all_exits(modality.stages, modality.heads)
    return lambda inputs, labels: loss(modality.normalised(inputs), labels)


def judged(victim: ModalityCascade, batch: Any, labels: Tensor) -> dict[str, float]:
    """Accuracy and mean MACs."""
    with torch.no_grad():
        macs = victim.trace(batch).macs.mean().item()
    accuracy = cards.share_right(victim, batch, labels)
    return {"accuracy": round(accuracy, 4), "clean_macs": round(macs)}


AUGMENTED: dict[str, fitting.Augment] = {VIBRATION: fitting.as_they_are, CAMERA: fitting.mirrored}
RECIPES: dict[str, Callable[[], None]] = {"machine_watch": train_machine_watch}
