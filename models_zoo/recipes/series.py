"""Series: networks learn cylinder, bell and funnel; what they save is chosen on held-out series."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from effattack.errors import UsageError
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.recipes import cards, fitting
from effattack.models_zoo.recipes.early_exit import all_exits, last_stage, lowest_threshold
from effattack.models_zoo.recipes.fitting import Loss
from effattack.models_zoo.series import embedded
from effattack.models_zoo.series.cbf import cbf
from effattack.models_zoo.series.merging import NeighbourMerging
from effattack.victim import Victim


def train_early_gru() -> None:
    """A GRU whose one classifier answers after every piece, all answers weighted equally."""
    torch.manual_seed(0)
    victim = embedded.cbf_early_gru(trained=False)
    train_exits(victim, embedded.cbf_early_gru, epochs=20, rate=1e-2)


def train_cnn_exit() -> None:
    """Four classifiers on convolutions over time, weighted equally."""
    torch.manual_seed(0)
    victim = embedded.cbf_cnn_exit(trained=False)
    train_exits(victim, embedded.cbf_cnn_exit, epochs=10, rate=5e-3)


def train_exits(
    victim: EarlyExit, factory: Callable[[], EarlyExit], *, epochs: int, rate: float
) -> None:
    """Train all exits together, then choose their threshold."""
    exits = all_exits(victim.stages, victim.heads)

    def loss(series: Tensor, labels: Tensor) -> Tensor:
        return exits((series - victim.mean) / victim.std, labels)

    _fit(victim, loss, epochs, rate)
    stage_logits = torch.cat([_stages(victim, some) for some in cbf("heldout")[0].split(100)])
    threshold = lowest_threshold(stage_logits, cbf("heldout")[1])
    _describe(factory, threshold, cards.share_right(lambda x: last_stage(victim, x), *cbf("test")))


def train_transformer_merge() -> None:
    """A transformer learns without merging; then a threshold is chosen that halves its MACs."""
    torch.manual_seed(0)
    victim = embedded.cbf_transformer_merge(trained=False)
    _fit(victim, lambda x, y: F.cross_entropy(victim.trace(x).logits, y), epochs=15, rate=3e-3)
    dense = cards.share_right(victim, *cbf("test"))
    threshold = halving_cosine(victim, cbf("heldout")[0])
    _describe(embedded.cbf_transformer_merge, threshold, dense)


def halving_cosine(victim: NeighbourMerging, series: Tensor) -> float:
    """The highest hundredth at which held-out series cost at most half of the MACs.

    Lower ones cost less at the same accuracy, but merge nearly every pair, whatever the series.
    """
    for percent in range(99, 0, -1):
        victim.threshold = percent / 100
        with torch.no_grad():
            if victim.trace(series).macs.mean() <= victim.dense_macs / 2:
                return victim.threshold
    raise UsageError(f"no threshold halves the MACs of {victim.name}: train it longer")


def _fit(victim: Victim, loss: Loss, epochs: int, rate: float) -> None:
    fitting.fit(victim, loss, cbf("train"), fitting.as_they_are, epochs=epochs, rate=rate)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")


def _describe(factory: Callable[[], Victim], threshold: float, dense_accuracy: float) -> None:
    """Store the threshold, and then the card of the victim that reads it."""
    name = factory.__name__
    write_card(name, {"threshold": threshold})
    cards.describe(
        factory(),
        *cbf("test"),
        data="cylinder, bell and funnel (Saito 1994): 6000 training, 600 held-out, 300 test series "
        "(effattack.models_zoo.series.cbf)",
        recipe=name,
        dense_accuracy=dense_accuracy,
        threshold=threshold,
    )


RECIPES: dict[str, Callable[[], None]] = {
    "cbf_early_gru": train_early_gru,
    "cbf_cnn_exit": train_cnn_exit,
    "cbf_transformer_merge": train_transformer_merge,
}


def _stages(victim: EarlyExit, series: Tensor) -> Tensor:
    stages = victim.trace(series).stage_logits
    assert stages is not None
    return stages.detach()
