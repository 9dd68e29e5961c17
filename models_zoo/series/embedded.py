"""The series victims that come trained: name -> factory. Their data are made by a formula.

Each is registered as an entry point of the group ``effattack.victims``. With ``trained=False`` a
factory builds what its recipe starts from.
"""

from __future__ import annotations

from typing import Any

from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import stored_threshold, with_weights
from effattack.models_zoo.series import cbf
from effattack.models_zoo.series.early_reading import EarlyReading
from effattack.models_zoo.series.merging import NeighbourMerging, PatchTransformer
from effattack.models_zoo.series.networks import exit_stages
from effattack.models_zoo.series.readers import GRUReader

DATA = "effattack.models_zoo.series.cbf:scored_series"
SCALE: dict[str, Any] = {"mean": [2.0], "std": [cbf.DOMAIN.deviation]}
CLASSES = len(cbf.CLASSES)


def cbf_early_gru(trained: bool = True) -> EarlyReading:
    """A GRU on cylinder, bell and funnel that looks after every 8 steps whether it is sure."""
    name = "cbf_early_gru"
    victim = EarlyReading(
        GRUReader(channels=1, width=32, frame=4),
        cbf.DOMAIN,
        every=8,
        classes=CLASSES,
        criterion=stored_threshold(name, trained),
        name=name,
        data=DATA,
        **SCALE,
    )
    return with_weights(victim, name, trained)


def cbf_cnn_exit(trained: bool = True) -> EarlyExit:
    """Convolutions over time on cylinder, bell and funnel, with three internal classifiers."""
    name = "cbf_cnn_exit"
    stages, heads = exit_stages(channels=1, classes=CLASSES)
    threshold = stored_threshold(name, trained)
    victim = EarlyExit(stages, heads, threshold, domain=cbf.DOMAIN, name=name, data=DATA, **SCALE)
    return with_weights(victim, name, trained)


def cbf_transformer_merge(trained: bool = True) -> NeighbourMerging:
    """A transformer on cylinder, bell and funnel that merges tokens which are alike."""
    name = "cbf_transformer_merge"
    victim = NeighbourMerging(
        PatchTransformer(channels=1, length=cbf.LENGTH, patch=4, classes=CLASSES),
        cbf.DOMAIN,
        merging_blocks=(0, 1, 2),
        threshold=stored_threshold(name, trained),
        name=name,
        data=DATA,
        **SCALE,
    )
    return with_weights(victim, name, trained)
