"""The exam's victims: name -> factory. Their gates are score margins, their inputs 8 x 8 digits.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from effattack.models_zoo import digits
from effattack.models_zoo.cascade.cascade import Cascade
from effattack.models_zoo.criteria import ScoreMargin
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.exam.networks import cascaded, exit_stages, skipping
from effattack.models_zoo.files import read_card, with_weights
from effattack.models_zoo.layer_skipping.skipnet import SkipNet

DATA = "effattack.models_zoo.digits:scored_small_images"


def exam_exit(trained: bool = True) -> EarlyExit:
    """A perceptron of three hidden layers with a classifier behind each."""
    name = "exam_exit"
    criterion = ScoreMargin(_thresholds(name, 2, trained))
    victim = EarlyExit(*exit_stages(), criterion, digits.SMALL, name=name, data=DATA)
    return with_weights(victim, name, trained)


def exam_cascade(trained: bool = True) -> Cascade:
    """Three perceptrons, each of which hands on what it is unsure about."""
    name = "exam_cascade"
    criterion = ScoreMargin(_thresholds(name, 2, trained))
    victim = Cascade(cascaded(), criterion, digits.SMALL, name=name, data=DATA)
    return with_weights(victim, name, trained)


def exam_skip(trained: bool = True) -> SkipNet:
    """Three residual blocks, each computed where a linear classifier before it is unsure."""
    name = "exam_skip"
    parts = skipping(_thresholds(name, 3, trained))
    victim = SkipNet(*parts, digits.SMALL, name=name, data=DATA)
    return with_weights(victim, name, trained)


def _thresholds(name: str, gates: int, trained: bool) -> list[float]:
    return read_card(name)["threshold"] if trained else [1.0] * gates
