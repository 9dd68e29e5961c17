"""Detectors of torchvision as victims: RetinaNet, FCOS, SSD and SSDLite, and Faster R-CNN.

Their own modules run, and their own thresholds and caps hold; what is written anew are the steps
between, which torchvision takes without gradients or inside one function. Answers are in pixels of
the image that was given, whatever the model resizes it to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD

from effattack.errors import UsageError
from effattack.models_zoo.detection.detector import Detector
from effattack.models_zoo.detection.rules import Rules
from effattack.models_zoo.detection.two_stage import TwoStage

SMALLEST = 1e-2
"""Shortest side of a box that Faster R-CNN gives out; a constant in its code."""


def from_torchvision(
    model: nn.Module, input_shape: tuple[int | None, ...] = (3, None, None), **settings: Any
) -> Detector | TwoStage:
    """A victim of a detector of torchvision, at the thresholds and caps that the model holds.

    Args:
        model: ``retinanet_...``, ``fcos_...``, ``ssd300_...``, ``ssdlite320_...`` or
            ``fasterrcnn_...`` of ``torchvision.models.detection``, or one built of its classes.
        input_shape: (3, H, W); None where a size is free.
        settings: ``max_macs``, ``name``, ``data``.

    Raises:
        UsageError: for a model of another kind, or one that draws masks or finds keypoints.
    """
    settings = {"input_shape": input_shape, "name": type(model).__name__, **settings}
    model.eval()
    if isinstance(model, FasterRCNN):
        return _two_stage(model, settings)
    decoders = {RetinaNet: retinanet, FCOS: fcos, SSD: ssd}
    decode = next((found for kind, found in decoders.items() if isinstance(model, kind)), None)
    if decode is None:
        raise UsageError(
            f"{type(model).__name__} is no detector of torchvision that is known: give RetinaNet, "
            "FCOS, SSD, SSDLite or Faster R-CNN, or wrap it in Detector or TwoStage"
        )
    return Detector(
        OneStage(model),
        decode,
        model.score_thresh,
        model.nms_thresh,
        max_nms=None,
        max_det=model.detections_per_img,
        top=model.topk_candidates,
        **settings,
    )


class Maps(NamedTuple):
    """Features of a batch of images of one size, as torchvision resized and padded them."""

    images: Any
    """``ImageList``"""
    levels: Mapping[str, Tensor]
    zoom: tuple[float, float, float, float]
    """By which coordinates were multiplied."""

    def outward(self, boxes: Tensor) -> Tensor:
        """(..., 4) in pixels of the images that were given."""
        return boxes / boxes.new_tensor(self.zoom)

    def inward(self, boxes: Tensor) -> Tensor:
        """(..., 4) in pixels of the resized images."""
        return boxes * boxes.new_tensor(self.zoom)


def features(model: Any, images: Tensor) -> Maps:
    """Resized, normalised, and through the backbone."""
    resized, _ = model.transform(list(images))
    levels = model.backbone(resized.tensors)
    levels = {"0": levels} if isinstance(levels, Tensor) else levels
    (height, width), (tall, wide) = images.shape[2:], resized.image_sizes[0]
    return Maps(resized, levels, (wide / width, tall / height) * 2)


class Raw(NamedTuple):
    """What the head of a one-stage model says of all anchors of all levels."""

    maps: Maps
    heads: Mapping[str, Tensor]
    """(B, anchors, numbers) each."""
    anchors: Tensor
    """(anchors, 4), the same in all images."""
    coder: Any

    @property
    def level(self) -> Tensor:
        """(anchors,): of models with as many anchors in every cell."""
        cells = [maps.shape[2] * maps.shape[3] for maps in self.maps.levels.values()]
        each = len(self.anchors) // sum(cells)
        levels = [torch.full((each * many,), index) for index, many in enumerate(cells)]
        return torch.cat(levels).to(self.anchors.device)


class OneStage(nn.Module):
    """RetinaNet, FCOS or SSD up to its head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> Raw:
        model, maps = self.model, features(self.model, images)
        levels = list(maps.levels.values())
        heads, anchors = model.head(levels), model.anchor_generator(maps.images, levels)[0]
        return Raw(maps, heads, anchors, model.box_coder)


Proposals = tuple[Tensor, Tensor, Tensor, Tensor]


def retinanet(raw: Raw) -> Proposals:
    """Every class of every anchor is a box; the best of each level go on."""
    scores = raw.heads["cls_logits"].sigmoid()
    return _by_level(raw, _each_class(_moved(raw, raw.coder.decode_single), scores, first=0))


def fcos(raw: Raw) -> Proposals:
    """The same; a score is the geometric mean of class and centredness."""
    product = raw.heads["cls_logits"].sigmoid() * raw.heads["bbox_ctrness"].sigmoid()
    scores = product.clamp_min(torch.finfo(product.dtype).tiny).sqrt()
    return _by_level(raw, _each_class(_moved(raw, raw.coder.decode), scores, first=0))


def ssd(raw: Raw) -> Proposals:
    """Every class of every anchor but the background; the best of each class go on."""
    scores = raw.heads["cls_logits"].softmax(2)[..., 1:]
    boxes, scores, classes = _each_class(_moved(raw, raw.coder.decode_single), scores, first=1)
    return boxes, scores, classes, classes


def _moved(raw: Raw, decode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(B, anchors, 4)"""
    moves = raw.heads["bbox_regression"]
    boxes = decode(moves.flatten(0, 1), raw.anchors.repeat(len(moves), 1))
    return raw.maps.outward(boxes.view_as(moves))


def _each_class(boxes: Tensor, scores: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """A box for each class of each anchor; classes are counted from ``first``."""
    batch, anchors, many = scores.shape
    spread = boxes[:, :, None].expand(batch, anchors, many, 4).flatten(1, 2)
    classes = torch.arange(first, first + many, device=scores.device).repeat(anchors)
    return spread, scores.flatten(1), classes


def _by_level(raw: Raw, boxes: tuple[Tensor, Tensor, Tensor]) -> Proposals:
    return *boxes, raw.level.repeat_interleave(len(boxes[2]) // len(raw.anchors))


class RegionStages(nn.Module):
    """Faster R-CNN as the network of a :class:`TwoStage`."""

    def __init__(self, model: FasterRCNN) -> None:
        super().__init__()
        self.model: Any = model

    def features(self, images: Tensor) -> Maps:
        return features(self.model, images)

    def propose(self, features: Maps) -> Proposals:
        """A box per anchor; those of a level do not suppress those of another."""
        rpn, levels = self.model.rpn, list(features.levels.values())
        objectness, moves = rpn.head(levels)
        anchors = rpn.anchor_generator(features.images, levels)
        counts = torch.tensor([each[0].numel() for each in objectness])
        objectness, moves = concat_box_prediction_layers(objectness, moves)
        boxes = rpn.box_coder.decode(moves, anchors).view(len(anchors), -1, 4)
        level = torch.arange(len(levels)).repeat_interleave(counts).to(boxes.device)
        scores = objectness.view(len(anchors), -1).sigmoid()
        return features.outward(boxes), scores, level, level

    def look(self, features: Maps, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """A box for every class but the background."""
        heads, inward = self.model.roi_heads, [features.inward(each) for each in boxes]
        cut = heads.box_roi_pool(features.levels, inward, features.images.image_sizes)
        logits, moves = heads.box_predictor(heads.box_head(cut))
        placed = heads.box_coder.decode(moves, inward).view(*logits.shape, 4)
        classes = torch.arange(1, logits.shape[1], device=logits.device)
        return features.outward(placed[:, 1:]), logits.softmax(1)[:, 1:], classes


def _two_stage(model: Any, settings: Mapping[str, Any]) -> TwoStage:
    rpn, heads = model.rpn, model.roi_heads
    if heads.has_mask() or heads.has_keypoint():
        raise UsageError(
            f"{type(model).__name__} draws masks or finds keypoints in the boxes that are left, "
            "work that is not stated here: give Faster R-CNN"
        )
    proposals = Rules(
        rpn.score_thresh if rpn.score_thresh > 0 else None,
        rpn.nms_thresh,
        max_nms=None,
        max_det=rpn.post_nms_top_n(),
        top=rpn.pre_nms_top_n(),
        least=rpn.min_size,
    )
    rules = Rules(
        heads.score_thresh,
        heads.nms_thresh,
        max_nms=None,
        max_det=heads.detections_per_img,
        least=SMALLEST,
    )
    return TwoStage(RegionStages(model), proposals, rules, **settings)
