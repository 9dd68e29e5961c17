"""The exam's victims: trained with all their classifiers, thresholds from held-out images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo.digits import small_digits
from effattack.models_zoo.exam import victims
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.layer_skipping.skipnet import SkipNet
from effattack.models_zoo.recipes import cards, fitting
from effattack.models_zoo.recipes.cards import share_right
from effattack.models_zoo.recipes.common import Loss
from effattack.models_zoo.recipes.early_exit import all_exits, last_stage
from effattack.victim import Victim
from effattack.victim.margins import score_lead

GO_ON = 0.3
"""Of the held-out images that reach a gate, so many are unsure there."""


def train_exit() -> None:
    """All classifiers together."""
    torch.manual_seed(0)
    victim = victims.exam_exit(trained=False)
    _fit(victim, all_exits(victim.stages, victim.heads))
    leads = _stage_leads(victim)
    _finish(victim, victims.exam_exit, _chained(leads), lambda x: last_stage(victim, x))


def train_cascade() -> None:
    """The models side by side."""
    torch.manual_seed(0)
    victim = victims.exam_cascade(trained=False)
    _fit(victim, lambda x, y: sum(F.cross_entropy(model(x), y) for model in victim.models))
    leads = _stage_leads(victim)
    _finish(victim, victims.exam_cascade, _chained(leads), victim.models[-1])


def train_skip() -> None:
    """Head and gates as classifiers, while each block is skipped at random for half of the images.

    So that features before and behind a block mean the same, skipped or not.
    """
    torch.manual_seed(0)
    victim = victims.exam_skip(trained=False)
    draws = Generator().manual_seed(1)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        features, total = victim.stem(images), images.new_zeros(())
        for k, block in enumerate(victim.blocks):
            total = total + F.cross_entropy(_scores(victim, k, features), labels)
            computed = torch.rand(len(images), 1, generator=draws) < 0.5
            features = torch.where(computed, block(features), features)
        return total + F.cross_entropy(victim.head(features), labels)

    _fit(victim, loss)
    dense = nn.Sequential(victim.stem, *victim.blocks, victim.head)
    _finish(victim, victims.exam_skip, _gate_by_gate(victim), dense)


def _fit(victim: Victim, loss: Loss) -> None:
    data = small_digits("train")
    fitting.fit(victim, loss, data, lambda images, _: images, epochs=60, rate=5e-3)


def _finish(
    victim: Victim,
    factory: Callable[[], Victim],
    thresholds: list[float],
    dense: Callable[[Tensor], Tensor],
) -> None:
    images, labels = small_digits("test")
    reference = share_right(dense, images, labels)
    save_weights(victim, WEIGHTS / f"{victim.name}.safetensors")
    write_card(victim.name, {"threshold": thresholds})
    cards.describe(
        factory(),
        images,
        labels,
        data="scikit-learn digits, 8 x 8: 1197 training, 300 held-out, 300 test images "
        "(effattack.models_zoo.digits)",
        recipe=victim.name,
        dense_accuracy=reference,
        threshold=thresholds,
    )


def _stage_leads(victim: Victim) -> Tensor:
    """(B, stages) leads on the held-out images."""
    with torch.no_grad():
        stage_logits = victim.trace(small_digits("heldout")[0]).stage_logits
    assert stage_logits is not None
    return score_lead(stage_logits)


def _chained(leads: Tensor) -> list[float]:
    """Thresholds of all stages but the last: each passes on its share of what reached it."""
    thresholds = []
    for k in range(leads.shape[1] - 1):
        thresholds.append(_threshold(leads[:, k]))
        leads = leads[leads[:, k] < thresholds[-1]]
    return thresholds


def _gate_by_gate(victim: SkipNet) -> list[float]:
    """Thresholds of the gates, each chosen on features as the gates before it leave them."""
    thresholds = []
    with torch.no_grad():
        features = victim.stem(small_digits("heldout")[0])
        for k, block in enumerate(victim.blocks):
            leads = score_lead(_scores(victim, k, features))
            thresholds.append(_threshold(leads))
            features = torch.where((leads < thresholds[-1])[:, None], block(features), features)
    return thresholds


def _scores(victim: SkipNet, k: int, features: Tensor) -> Tensor:
    return victim.gates[str(k)].scores(features)


def _threshold(leads: Tensor) -> float:
    return round(leads.double().quantile(GO_ON).item(), 2)


RECIPES: dict[str, Callable[[], None]] = {
    "exam_exit": train_exit,
    "exam_cascade": train_cascade,
    "exam_skip": train_skip,
}
