"""The victim that watches machines, trained, and the two that answer without a modality.

``machine_watch`` is registered as an entry point of the group ``effattack.victims``; the others are
named by their paths. With ``trained=False`` it is what its recipe starts from.
"""

from __future__ import annotations

from torch import nn

from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.multimodal.gated import Modality, ModalityCascade
from effattack.models_zoo.multimodal.machines import CAMERA, CLASSES, DOMAIN, VIBRATION
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.models_zoo.series.networks import exit_stages

DATA = "effattack.models_zoo.multimodal.machines"


def camera_stages(classes: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Four convolutions over the picture, each of which sees further, and their heads."""
    widths = [(3, 8, 1), (8, 16, 2), (16, 32, 2), (32, 48, 1)]
    stages: list[nn.Module] = [convolution(i, o, s) for i, o, s in widths]
    return stages, [pooled_head(o, classes) for _, o, _ in widths]


def machine_watch(trained: bool = True) -> ModalityCascade:
    """A vibration sensor answers where it is sure; else a camera is looked through."""
    name = "machine_watch"
    parts, classes = DOMAIN.parts, len(CLASSES)
    modalities = {
        VIBRATION: Modality(parts[VIBRATION], *exit_stages(1, classes)),
        CAMERA: Modality(parts[CAMERA], *camera_stages(classes), mean=0.5, std=0.25),
    }
    threshold = stored_threshold(name, trained)
    data = f"{DATA}:scored_machines"
    victim = ModalityCascade(modalities, threshold, names=CLASSES, name=name, data=data)
    return with_weights(victim, name, trained)


def machine_watch_without_camera() -> ModalityCascade:
    """The sensor alone, which answers where it is unsure, too."""
    return machine_watch().without(CAMERA, data=f"{DATA}:scored_vibrations")


def machine_watch_without_vibration() -> ModalityCascade:
    """The camera alone, which every machine pays for."""
    return machine_watch().without(VIBRATION, data=f"{DATA}:scored_pictures")
