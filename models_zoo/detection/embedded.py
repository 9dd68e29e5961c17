"""The detectors that come trained: name -> factory. Their scenes are composed by rule.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from torch import Tensor

from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.detector import Detector
from effattack.models_zoo.detection.networks import Cells, read_cells
from effattack.models_zoo.detection.pipeline import Pipeline
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


def scenes_pipeline() -> Pipeline:
    """The detector of scenes, and for each of its boxes a classifier of digits with exits."""
    name = "scenes_pipeline"
    return Pipeline(scenes_detector(), digits_cnn_sdn(), as_scanned, name=name, data=DATA)


def as_scanned(crops: Tensor) -> Tensor:
    """Crops of a scene with the contrast that the classifiers of digits know: white on black."""
    return ((crops - BLACK) / (WHITE - BLACK)).clamp(0, 1)
