"""The detectors that come trained: name -> factory. Their scenes are composed by rule.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from torch import Tensor

from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.detector import Detector
from effattack.models_zoo.detection.networks import Cells, faster_rcnn, read_cells
from effattack.models_zoo.detection.pipeline import Pipeline
from effattack.models_zoo.detection.rules import Rules
from effattack.models_zoo.detection.torchvision_models import Maps, RegionStages
from effattack.models_zoo.detection.two_stage import TwoStage
from effattack.models_zoo.digits import CLASSES
from effattack.models_zoo.embedded import digits_cnn_sdn
from effattack.models_zoo.files import with_weights

DATA = "effattack.models_zoo.detection.scenes:scored_scenes"
BLACK, WHITE = 0.4, 0.85
"""Of crops: the best for the classifier of five pairs that were tried on 60 held-out scenes."""


def scenes_detector(trained: bool = True) -> Detector:
    """One stage without anchors on scenes of digits: 256 boxes proposed, thresholds as deployed."""
    name = "scenes_detector"
    network = with_weights(Cells(CLASSES), name, trained)
    shape = scenes.DOMAIN.shape
    return Detector(network, read_cells, input_shape=shape, name=name, data=DATA)


def scenes_two_stage(trained: bool = True) -> TwoStage:
    """A small Faster R-CNN on scenes of digits: of 512 boxes, at most 128 are looked at."""
    return _two_stage("scenes_two_stage", trained)


def scenes_two_stage_adapted(trained: bool = True) -> TwoStage:
    """The same, trained to see scenes under four domain shifts, of which it had no labels, alike.

    Chen et al. 2018, arXiv 1803.03243 (:mod:`effattack.models_zoo.detection.adaptation`).
    """
    return _two_stage("scenes_two_stage_adapted", trained)


def _two_stage(name: str, trained: bool) -> TwoStage:
    network = with_weights(faster_rcnn(CLASSES, scenes.SIDE), name, trained)
    return TwoStage(
        DigitStages(network),
        proposals=Rules(score=0.3, iou=0.7, max_nms=256, max_det=128),
        rules=Rules(score=0.3, iou=0.5, max_nms=None, max_det=100),
        input_shape=scenes.DOMAIN.shape,
        name=name,
        data=DATA,
    )


class DigitStages(RegionStages):
    """Stages whose first class is the digit 0, not the ground."""

    def look(self, features: Maps, boxes: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        placed, scores, classes = super().look(features, boxes)
        return placed, scores, classes - 1


def scenes_pipeline() -> Pipeline:
    """The detector of scenes, and for each of its boxes a classifier of digits with exits."""
    name = "scenes_pipeline"
    return Pipeline(scenes_detector(), digits_cnn_sdn(), as_scanned, name=name, data=DATA)


def as_scanned(crops: Tensor) -> Tensor:
    """Crops of a scene with the contrast that the classifiers of digits know: white on black."""
    return ((crops - BLACK) / (WHITE - BLACK)).clamp(0, 1)
