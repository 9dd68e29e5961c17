"""Detectors of torchvision: their own answers, in closed form, with small random networks."""

from collections import OrderedDict

import pytest
import torch
from detectors import noise
from torch import nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    MaskRCNN,
    RetinaNet,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from effattack.errors import UsageError
from effattack.models_zoo.detection.torchvision_models import from_torchvision
from effattack.victim import audit
from effattack.victim.checks import INVARIANTS

SIZES = {"min_size": 32, "max_size": 64}


class TwoLevels(nn.Module):
    """Maps of 8 x 8 and 4 x 4 cells of an image of 32 x 32."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 32, 3, 4, 1), nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, images):
        fine = self.first(images).tanh()
        return OrderedDict([("0", fine), ("1", self.second(fine).tanh())])


def anchors(*sizes):
    return AnchorGenerator(tuple((size,) for size in sizes), ((1.0,),) * len(sizes))


def loud(model):
    """With heads whose scores are spread over [0, 1]: fresh ones all say nearly the same."""
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and "head" in name:
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model.eval()


def retinanet():
    model = RetinaNet(TwoLevels(), 3, anchor_generator=anchors(6, 12), topk_candidates=50, **SIZES)
    model.score_thresh, model.detections_per_img = 0.4, 30
    return model


def fcos():
    model = FCOS(TwoLevels(), 3, anchor_generator=anchors(6, 12), topk_candidates=40, **SIZES)
    model.score_thresh = 0.3
    return model


def ssd():
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.4, 0.6])
    backbone = TwoLevels()
    backbone.out_channels = [32, 32]
    return SSD(backbone, boxes, (32, 32), 4, score_thresh=0.2, topk_candidates=25)


def faster_rcnn():
    return FasterRCNN(
        TwoLevels(),
        3,
        rpn_anchor_generator=anchors(6, 12),
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], 2, 2),
        rpn_pre_nms_top_n_test=50,
        rpn_post_nms_top_n_test=20,
        box_score_thresh=0.3,
        box_detections_per_img=15,
        **SIZES,
    )


MODELS = {each.__name__: each for each in (faster_rcnn, fcos, retinanet, ssd)}
every_model = pytest.mark.parametrize("kind", sorted(MODELS))


def made(kind):
    torch.manual_seed(0)
    return loud(MODELS[kind]())


@every_model
@pytest.mark.parametrize("shape", [(32, 32), (20, 30)])
def test_answers_are_those_of_torchvision(kind, shape):
    model, images = made(kind), noise(2, *shape)
    victim = from_torchvision(model, (3, *shape))
    with torch.no_grad():
        expected, answers = model(list(images)), victim.task.members(victim(images))
    for rows, other in zip(answers, expected, strict=True):
        columns = [other["boxes"], other["scores"][:, None], other["labels"][:, None].float()]
        assert len(rows) == len(other["boxes"]) > 3
        assert torch.allclose(rows, torch.cat(columns, 1), atol=1e-4)


@every_model
@pytest.mark.slow
def test_the_contract_holds(kind):
    victim, images = from_torchvision(made(kind), (3, 32, 32)), noise(2)
    for check in INVARIANTS:
        assert check(victim, images) == [], check.__name__


@every_model
@pytest.mark.slow
def test_work_is_told_as_it_is_stated(kind):
    victim, images = from_torchvision(made(kind), (3, 32, 32)), noise(2)
    found, trace = audit(victim, images), victim.trace(images)
    assert found.macs.tolist() == trace.macs.tolist()
    for name, count in found.counts.items():
        assert torch.equal(count, trace.also[name]), name
        assert (count <= victim.ceiling(images, name)).all(), name
    assert (trace.also["pairs"] > 20).all()


def settled(model):
    """Its batch norms know the scale of what they see, so that a deep random network says much."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        levels = model.train().backbone(torch.rand(4, 3, 320, 320) * 2 - 1)
        model.head(list(levels.values()))
    return model.eval()


@pytest.mark.slow
def test_ssdlite_as_it_is_sold():
    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    model = settled(loud(model))
    model.score_thresh = 0.5
    victim, images = from_torchvision(model, (3, 64, 64), name="SSDLite"), noise(1, 64, 64)
    with torch.no_grad():
        (expected,), (rows,) = model(list(images)), victim.task.members(victim(images))
    assert len(rows) == len(expected["boxes"]) > 3
    assert torch.allclose(rows[:, :4], expected["boxes"], atol=1e-4)
    assert torch.allclose(rows[:, 4], expected["scores"], atol=1e-4)


def test_other_models_are_refused():
    with pytest.raises(UsageError, match="Linear is no detector of torchvision"):
        from_torchvision(nn.Linear(1, 1))
    pool = MultiScaleRoIAlign(["0"], 2, 2)
    masks = MaskRCNN(TwoLevels(), 3, rpn_anchor_generator=anchors(6, 12), mask_roi_pool=pool)
    with pytest.raises(UsageError, match=r"masks.*give Faster R-CNN"):
        from_torchvision(masks)
