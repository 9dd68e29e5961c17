"""Three victims that no attack was chosen on: other architectures, criteria and logit scales.

Trained on the digits from a seed, where they are named, in a minute or two of one core:
``unseen_victims:mixer_entropy`` and the others. What decides is chosen on held-out images, as for
the zoo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import cache

import torch
from torch import Tensor, nn

from effattack.models_zoo.cascade.cascade import Cascade
from effattack.models_zoo.criteria import Confidence, Criterion, Entropy, Patience
from effattack.models_zoo.digits import SHAPE, digits
from effattack.models_zoo.early_exit.early_exit import EarlyExit
from effattack.models_zoo.exits import first_exit
from effattack.models_zoo.networks import convolution, pooled_head
from effattack.models_zoo.recipes.common import cross_entropy, fit
from effattack.models_zoo.recipes.early_exit import all_exits
from effattack.victim import Victim

CLASSES, SCALE = 10, 6.0
DATA = "effattack.models_zoo.digits:scored_images"
Stages = tuple[list[nn.Module], list[nn.Module]]


class Scaled(nn.Module):
    """Times a number: softmax sharpens, answers stay."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


class Patches(nn.Module):
    """(B, C, H, W) -> (B, tokens, width): one token for every 4 x 4 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(SHAPE[0], width, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(images).flatten(2).transpose(1, 2)


class Mix(nn.Module):
    """A block of an MLP-mixer (Tolstikhin et al., NeurIPS 2021, arXiv 2105.01601)."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.within = nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, width))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.across(self.first(tokens).transpose(1, 2)).transpose(1, 2)
        return tokens + self.within(self.second(tokens))


class MeanHead(nn.Module):
    """Classifies the mean token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.norm(tokens).mean(1))


def mixer_stages(width: int = 32) -> Stages:
    """Four stages of one block each, and their heads."""
    tokens = (SHAPE[1] // 4) * (SHAPE[2] // 4)
    stages: list[nn.Module] = [Mix(tokens, width) for _ in range(4)]
    stages[0] = nn.Sequential(Patches(width), stages[0])
    return stages, [MeanHead(width) for _ in stages]


def convolution_stages() -> Stages:
    """Six stages of one convolution each, and their heads."""
    widths = [(3, 8, 1), (8, 12, 2), (12, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 1)]
    return [convolution(*each) for each in widths], [pooled_head(o, CLASSES) for _, o, _ in widths]


def cascade_models() -> tuple[list[nn.Module], list[nn.Module]]:
    """A tanh network, convolutions and a mixer: three kinds, cheapest first; no heads."""
    tanh = nn.Sequential(
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 24), nn.Tanh(), nn.Linear(24, CLASSES)
    )
    convolutions = nn.Sequential(
        convolution(3, 8, 2), convolution(8, 16, 2), pooled_head(16, CLASSES)
    )
    stages, heads = mixer_stages()
    return [tanh, convolutions, nn.Sequential(*stages, heads[-1])], []


@cache
def trained(parts: Callable[[], Stages], epochs: int) -> nn.ModuleList:
    """What ``parts`` makes, trained from seed 0: stages and heads together, or models alone."""
    torch.manual_seed(0)
    stages, heads = parts()
    if heads:
        both = nn.ModuleList([*stages, *heads])
        fit(both, all_exits(stages, heads), epochs=epochs, rate=5e-3)
        return both
    for model in stages:
        fit(model, cross_entropy(model), epochs=epochs, rate=5e-3)
    return nn.ModuleList(stages)


def least_work(stage_logits: Tensor, labels: Tensor, by: Iterable[Criterion]) -> Criterion:
    """The first criterion whose accuracy is within half a point of the last stage's.

    Args:
        stage_logits: (B, stages, classes) on held-out images.
        labels: (B,).
        by: criteria, the one that stops soonest first.
    """
    floor = (stage_logits[:, -1].argmax(1) == labels).double().mean() - 0.005
    rows, internal = torch.arange(len(labels)), range(stage_logits.shape[1] - 1)
    criterion = None
    for criterion in by:
        margins = [criterion.margin(stage_logits[:, : k + 1]) for k in internal]
        answers = stage_logits[rows, first_exit(margins)[0].sum(1)].argmax(1)
        if (answers == labels).double().mean() >= floor:
            break
    assert criterion is not None
    return criterion


def mixer_entropy() -> Victim:
    """An MLP-mixer with exits by entropy, its logits times six."""
    stages, heads = _halves(trained(mixer_stages, 20))
    scaled = [nn.Sequential(head, Scaled(SCALE)) for head in heads]

    def made(criterion: Criterion) -> Victim:
        return EarlyExit(stages, scaled, criterion, SHAPE, name="mixer_entropy", data=DATA)

    return _chosen(made, [Entropy(n / 100) for n in range(200, 0, -2)])


def patient_convolutions() -> Victim:
    """Convolutions that stop once three stages in a row agree."""
    stages, heads = _halves(trained(convolution_stages, 20))
    name = "patient_convolutions"
    return EarlyExit(stages, heads, Patience(2), SHAPE, name=name, data=DATA)


def mixed_cascade() -> Victim:
    """A tanh network, convolutions and a mixer, each asked where those before are unsure."""
    models = list(deepcopy(trained(cascade_models, 20)))

    def made(criterion: Criterion) -> Victim:
        return Cascade(models, criterion, SHAPE, name="mixed_cascade", data=DATA)

    return _chosen(made, [Confidence(percent / 100) for percent in range(50, 100)])


def _halves(both: nn.ModuleList) -> Stages:
    parts = list(deepcopy(both))
    return parts[: len(parts) // 2], parts[len(parts) // 2 :]


def _chosen(made: Callable[[Criterion], Victim], criteria: Sequence[Criterion]) -> Victim:
    """The victim under the criterion that held-out images choose."""
    images, labels = digits("heldout")
    with torch.no_grad():
        stage_logits = made(criteria[0]).trace(images).stage_logits
    assert stage_logits is not None
    return made(least_work(stage_logits, labels, criteria))
