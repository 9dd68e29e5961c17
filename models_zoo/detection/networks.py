"""Small networks that see scenes of one channel: what the embedded detectors are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import (
    FasterRCNN,
    FastRCNNConvFCHead,
    FastRCNNPredictor,
)
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

STRIDE = 4
"""Pixels between neighbouring cells."""
USUAL = 12.0
"""Pixels of a box whose predicted log-size is 0."""


def trunk(width: int) -> nn.Sequential:
    """(B, 1, H, W) -> (B, width, H / 4, W / 4): four convolutions; a cell sees 31 pixels."""
    return nn.Sequential(
        *_convolution(1, 16, stride=2),
        *_convolution(16, width, stride=2),
        *_convolution(width, width),
        *_convolution(width, width),
        *_convolution(width, width),
    )


class Cells(nn.Module):
    """One stage without anchors: every cell says of which class it is the middle, and of what box.

    Zhou et al., "Objects as Points" (CenterNet), 2019 (arXiv 1904.07850), with several cells per
    object, as Tian et al., FCOS, ICCV 2019 (arXiv 1904.01355), sample centres; so NMS is needed.

    Args:
        classes: how many.
        width: channels.
    """

    def __init__(self, classes: int, width: int = 32) -> None:
        super().__init__()
        self.trunk = trunk(width)
        self.classes = nn.Sequential(*_convolution(width, width), nn.Conv2d(width, classes, 1))
        self.boxes = nn.Sequential(*_convolution(width, width), nn.Conv2d(width, 4, 1))
        nn.init.constant_(self.classes[-1].bias, -4.6)  # 1 %, as focal loss starts from

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1, H, W) -> (B, cells, 4 + classes): boxes in pixels, then logits."""
        seen = self.trunk(images)
        logits, offsets = self.classes(seen), self.boxes(seen)
        middles = cell_middles(*seen.shape[2:]).to(seen)
        boxes = decoded(offsets.flatten(2).mT, middles)
        return torch.cat([boxes, logits.flatten(2).mT], 2)


def read_cells(raw: Tensor) -> tuple[Tensor, Tensor]:
    """What :class:`Cells` says -> boxes (B, cells, 4) and scores (B, cells, classes) in [0, 1]."""
    return raw[..., :4], raw[..., 4:].sigmoid()


def cell_middles(rows: int, columns: int) -> Tensor:
    """(rows · columns, 2): x and y in pixels, row by row."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.stack([x, y], 2).flatten(0, 1) + 0.5) * STRIDE


def decoded(offsets: Tensor, middles: Tensor) -> Tensor:
    """(B, cells, 4): shift in cells and log-size over ``USUAL`` -> left, top, right, bottom."""
    centre = middles + STRIDE * offsets[..., :2]
    half = USUAL / 2 * offsets[..., 2:].clamp(-3, 3).exp()
    return torch.cat([centre - half, centre + half], -1)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


def faster_rcnn(classes: int, side: int, proposed: float, width: int = 32) -> FasterRCNN:
    """Two stages, in torchvision's own parts: proposals, then a head that each of them pays for.

    Ren et al., Faster R-CNN, 2015 (arXiv 1506.01497). Two anchors per cell; at most 128
    proposals go on behind NMS. Classes count from 1, 0 is the ground.

    Args:
        classes: how many, the ground not among them.
        side: pixels of an image along either side; others are resized.
        proposed: objectness above which a box is a proposal; 0 for training, which needs poor ones.
        width: channels.
    """
    backbone = trunk(width)
    backbone.out_channels = width
    pool = MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2)
    return FasterRCNN(
        backbone,
        min_size=side,
        max_size=side,
        image_mean=[0.0],
        image_std=[1.0],
        rpn_anchor_generator=AnchorGenerator(((11, 17),), ((1.4,),)),
        rpn_head=RPNHead(width, 2),
        rpn_fg_iou_thresh=0.6,
        rpn_bg_iou_thresh=0.3,
        rpn_batch_size_per_image=32,
        rpn_score_thresh=proposed,
        rpn_pre_nms_top_n_train=64,
        rpn_post_nms_top_n_train=32,
        rpn_pre_nms_top_n_test=256,
        rpn_post_nms_top_n_test=128,
        box_roi_pool=pool,
        box_head=FastRCNNConvFCHead((width, 5, 5), [width], [128]),
        box_predictor=FastRCNNPredictor(128, classes + 1),
        box_score_thresh=0.3,
        box_nms_thresh=0.5,
        box_batch_size_per_image=16,
    )
