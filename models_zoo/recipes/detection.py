"""Detectors: networks learn to find digits in composed scenes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from effattack.models_zoo.detection import embedded
from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.networks import STRIDE, Cells, cell_middles, faster_rcnn
from effattack.models_zoo.detection.scenes import SHIFTS, SIDE, scenes
from effattack.models_zoo.digits import CLASSES
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.recipes import fitting
from effattack.victim import Trace, Victim

DATA = "scenes of scikit-learn's digits: 4000 training, 200 held-out, 200 test scenes"
AT_ONCE = 50
FAR = 1e9
"""Pixels to a digit that is not there."""


def train_detector() -> None:
    """Focal loss of the classes, generalised IoU of the boxes of cells near a digit's middle."""
    torch.manual_seed(0)
    network = Cells(CLASSES)
    data = scenes("train")
    fitting.fit(
        network, cells_loss(network), data, fitting.as_they_are, epochs=10, rate=4e-3, batch=32
    )
    save_weights(network, WEIGHTS / "scenes_detector.safetensors")
    describe(embedded.scenes_detector())


def train_two_stage() -> None:
    """The four losses of Faster R-CNN, as torchvision sums them."""
    torch.manual_seed(0)
    network = faster_rcnn(CLASSES, SIDE)
    data = scenes("train")
    fitting.fit(
        network, regions_loss(network), data, fitting.as_they_are, epochs=4, rate=3e-3, batch=16
    )
    save_weights(network, WEIGHTS / "scenes_two_stage.safetensors")
    describe(embedded.scenes_two_stage())


def describe_pipeline() -> None:
    """Both of its parts are there already, and nothing is trained; its card."""
    describe(embedded.scenes_pipeline())


def cells_loss(network: Cells) -> fitting.Loss:
    """Cells whose middle is at most a stride from that of a digit, along both sides, are its own.

    Lin et al. 2017 (arXiv 1708.02002) and Rezatofighi et al. 2019 (arXiv 1902.09630), each a sum
    over the batch, per such cell.
    """

    def loss(images: Tensor, truth: Tensor) -> Tensor:
        raw = network(images)
        rows, columns = (side // STRIDE for side in images.shape[2:])
        middles, centres = cell_middles(rows, columns), (truth[..., :2] + truth[..., 2:4]) / 2
        away = (middles[None, :, None] - centres[:, None]).abs().amax(-1)
        away, nearest = away.masked_fill(truth[:, None, :, 4] < 0, FAR).min(-1)
        near = away <= STRIDE
        own = truth.gather(1, nearest[..., None].expand(-1, -1, truth.shape[2]))
        kinds = F.one_hot(own[..., 5].clamp_min(0).long(), CLASSES) * near[..., None]
        boxes, logits = raw[..., :4], raw[..., 4:]
        of_classes = sigmoid_focal_loss(logits, kinds.to(logits), reduction="sum")
        of_boxes = generalized_box_iou_loss(boxes[near], own[..., :4][near], reduction="sum")
        return (of_classes + of_boxes) / near.sum()

    return loss


def regions_loss(network: FasterRCNN) -> fitting.Loss:
    """Objectness and boxes of proposals, classes and boxes of what is looked at."""

    def loss(images: Tensor, truth: Tensor) -> Tensor:
        return torch.stack([*network(list(images), targets(truth)).values()]).sum()

    return loss


def targets(truth: Tensor) -> list[dict[str, Tensor]]:
    """(B, M, 6) as task ``Boxes`` has them -> what torchvision's detectors are trained with."""
    there = [rows[rows[:, 4] >= 0] for rows in truth]
    return [{"boxes": rows[:, :4], "labels": rows[:, 5].long() + 1} for rows in there]


def describe(victim: Victim, data: str = DATA) -> None:
    """Write the card of a detector from its test scenes, and print its line."""
    traces, found, truth = seen(victim, "none")
    clean = {
        name: torch.cat([t.also[name] for t in traces]).mean().item() for name in victim.counts
    }
    card = {
        "name": victim.name,
        "family": victim.family,
        "data": f"{data} (effattack.models_zoo.detection.scenes)",
        "recipe": f"python -m effattack.models_zoo.train {victim.name}",
        "average_precision": round(average_precision(found, truth), 4),
        "average_precision_shifted": {
            shift: round(average_precision(*seen(victim, shift)[1:]), 4)
            for shift in SHIFTS
            if shift != "none"
        },
        "accuracy": round(victim.task.right(found, truth).double().mean().item(), 4),
        **{f"clean_{name}": number for name, number in clean.items()},
        "clean_macs": round(torch.cat([trace.macs for trace in traces]).mean().item()),
        "max_macs": round(victim.max_macs),
        "parameters": sum(p.numel() for p in victim.parameters()),
        "torch": torch.__version__,
    }
    write_card(victim.name, card)
    print(f"{victim.name}: average precision {card['average_precision']:.2%}, clean {clean}")


def seen(victim: Victim, shift: str) -> tuple[list[Trace], Tensor, Tensor]:
    """Traces of the test scenes under a shift, the answers of all, and what is there."""
    images, truth = scenes("test", shift)
    with torch.no_grad():
        traces = [victim.trace(some) for some in images.split(AT_ONCE)]
    return traces, victim.task.join([trace.logits for trace in traces]), truth


RECIPES: dict[str, Callable[[], None]] = {
    "scenes_detector": train_detector,
    "scenes_two_stage": train_two_stage,
    "scenes_pipeline": describe_pipeline,
}
