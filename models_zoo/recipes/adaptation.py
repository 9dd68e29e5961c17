"""A detector adapts to shifted scenes: it has labels of the others alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList

from effattack.models_zoo.detection import embedded
from effattack.models_zoo.detection.adaptation import DomainClassifiers
from effattack.models_zoo.detection.networks import faster_rcnn
from effattack.models_zoo.detection.scenes import SHIFTS, SIDE, scenes
from effattack.models_zoo.detection.torchvision_models import Maps, features
from effattack.models_zoo.digits import CLASSES
from effattack.models_zoo.files import WEIGHTS, save_weights
from effattack.models_zoo.recipes import detection, fitting

DATA = f"{detection.DATA}; as many shifted training scenes, without labels"
WEIGHT = 1.0
"""λ, of the domain terms beside the losses of the detector. Chosen on held-out scenes; 0 and
the published 0.1 were tried beside."""


def train_adapted() -> None:
    """As ``scenes_two_stage`` on the source, with as many shifted scenes and no labels of them."""
    torch.manual_seed(0)
    network = faster_rcnn(CLASSES, SIDE)
    classifiers = DomainClassifiers(network.backbone.out_channels, 128)
    loss = adapting_loss(network, classifiers)
    both = nn.ModuleList([network, classifiers])
    fitting.fit(
        both, loss, with_shifted("train"), fitting.as_they_are, epochs=4, rate=3e-3, batch=16
    )
    save_weights(network, WEIGHTS / "scenes_two_stage_adapted.safetensors")
    detection.describe(embedded.scenes_two_stage_adapted(), DATA)


def with_shifted(split: str) -> tuple[Tensor, Tensor]:
    """Pairs (B, 2, 1, 64, 64) of a source and a target scene, of different plans, and the labels of
    the source (B, 4, 6). Every fourth target scene is under the same shift."""
    source, truth = scenes(split)
    shifts = sorted(SHIFTS.keys() - {"none"})
    target = torch.empty_like(source)
    for first, shift in enumerate(shifts):
        target[first :: len(shifts)] = scenes(split, shift)[0][first :: len(shifts)]
    return torch.stack([source, target.roll(len(source) // 2, 0)], 1), truth


def adapting_loss(network: FasterRCNN, classifiers: DomainClassifiers) -> fitting.Loss:
    """The four losses of Faster R-CNN on the source, and those of the domains on both.

    Both go through the backbone in one batch, so that they share its statistics.
    """

    def loss(pairs: Tensor, truth: Tensor) -> Tensor:
        maps, heads = features(network, pairs.transpose(0, 1).flatten(0, 1)), network.roi_heads
        (source, target), sizes = _halves(maps), maps.images.image_sizes
        labels, none = map(detection.targets, (truth, torch.full_like(truth, -1)))
        of_source, by_proposals = network.rpn(source.images, source.levels, labels)
        _, by_heads = heads(source.levels, of_source, source.images.image_sizes, labels)
        of_target, _ = network.rpn(target.images, target.levels, none)
        boxes, index = [*of_source, *of_target], torch.arange(len(sizes))
        looked_at = heads.box_head(heads.box_roi_pool(maps.levels, boxes, sizes))
        image = index.repeat_interleave(torch.tensor([len(each) for each in boxes]))
        domains = classifiers(maps.levels["0"], looked_at, image, index >= len(truth))
        return torch.stack([*by_proposals.values(), *by_heads.values()]).sum() + WEIGHT * domains

    return loss


def _halves(maps: Maps) -> list[Maps]:
    """Those of the source, and of the target."""
    halves = zip(maps.images.tensors.chunk(2), maps.levels["0"].chunk(2), strict=True)
    return [
        Maps(ImageList(images, maps.images.image_sizes[: len(images)]), {"0": level}, maps.zoom)
        for images, level in halves
    ]


RECIPES: dict[str, Callable[[], None]] = {"scenes_two_stage_adapted": train_adapted}
