"""MSDNet: coarse features from the first layer on, so that every exit has something to classify.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018
(arXiv 1703.09844). State dicts of the PyTorch implementation that the authors link
(https://github.com/kalviny/MSDNet-PyTorch, MIT) load as they are. That code runs all blocks and
simulates the exits afterwards; here the network stops at the exit taken, after the whole block
before it (the paper's "lazy evaluation" inside a block is in neither).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from math import ceil, floor
from typing import Any

from torch import Tensor, cat, nn

from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.criteria import Criterion
from effattack.models_zoo.early_exit.early_exit import (
    EarlyExit,
    load_network,
    sizing_weight,
)
from effattack.models_zoo.official import official_names

ALWAYS, NEVER = -1e8, 1e8
"""Thresholds that the official code writes for exits that take all images, or none."""


class MSDNet(EarlyExit):
    """A multi-scale dense network; each block of layers ends in a classifier.

    Args:
        blocks: number of blocks and of exits.
        channels: of the finest scale after the first layer, before the growth factor.
        base: layers of the first block.
        step: layers of each later block, ``step_mode`` "even"; block i (from 0) has step * i + 1
            with "lin_grow".
        growth_rate: channels that a layer adds to a scale, before the growth factor.
        growth_factors: channels of each scale relative to the finest.
        bottleneck_factors: width limit of the 1 x 1 convolutions of each scale, relative to their
            outputs.
        scales: number of scales.
        prune: how fine scales are dropped with depth: "max" (evenly) or "min" (as late as the last
            classifier allows).
        reduction: share of the channels that transitions keep; 0 for no transitions.
        bottleneck: whether layers have 1 x 1 convolutions.
        thresholds: confidence at which to leave, one for each exit (that of the last is ignored:
            it always answers), one for all, or a criterion of ``effattack.models_zoo.criteria``.
            -1e8 and 1e8 are the official code's "always" and "never".
        form: "cifar" or "imagenet", which differ in the first layer and in the classifiers.
        num_classes: width of the logits.
        input_size: side of the images in pixels; by default 32 (cifar) or 224 (imagenet).
        settings: ``mean``, ``std``, ``data``.

    Raises:
        UsageError: for sizes that do not fit together, or thresholds outside their range.
    """

    def __init__(
        self,
        *,
        blocks: int,
        channels: int,
        base: int,
        step: int,
        thresholds: float | Sequence[float] | Criterion,
        step_mode: str = "even",
        growth_rate: int = 6,
        growth_factors: Sequence[int] = (1, 2, 4),
        bottleneck_factors: Sequence[int] = (1, 2, 4),
        scales: int = 3,
        prune: str = "max",
        reduction: float = 0.5,
        bottleneck: bool = True,
        form: str = "cifar",
        num_classes: int = 10,
        input_size: int | None = None,
        name: str = "MSDNet",
        **settings: Any,
    ) -> None:
        for what, given, known in (
            ("step_mode", step_mode, ("even", "lin_grow")),
            ("prune", prune, ("max", "min")),
            ("form", form, ("cifar", "imagenet")),
        ):
            if given not in known:
                raise unknown_name(what, given, known)
        if not len(growth_factors) == len(bottleneck_factors) == scales:
            raise UsageError(
                f"growth_factors {growth_factors} and bottleneck_factors {bottleneck_factors} must "
                f"have one entry for each of the {scales} scales"
            )
        if odd := [f for f in growth_factors[1:] if growth_rate * f % 2]:
            raise UsageError(
                f"growth_rate {growth_rate} times growth_factors {odd} is odd: the channels added "
                "to coarse scales come half from the finer scale"
            )
        side = input_size or (32 if form == "cifar" else 224)
        _check_side(side, form, scales)
        limits = tuple(bottleneck_factors) if bottleneck else (None,) * scales
        steps = [base, *(step if step_mode == "even" else step * i + 1 for i in range(1, blocks))]
        width, depth = channels, 0
        stages: list[nn.Module] = []
        heads: list[nn.Module] = []
        for layers in steps:
            stage: list[nn.Module] = []
            if not stages:
                stage.append(_FirstLayer([width * factor for factor in growth_factors], form))
            for _ in range(layers):
                depth += 1
                before, after = _scales_around(depth, sum(steps), scales, prune)
                factors = growth_factors[-before:], limits[-before:]
                stage.append(_Layer(width, growth_rate, *factors, after))
                width += growth_rate
                thirds = (sum(steps) // 3, 2 * sum(steps) // 3)
                narrows = before > after if prune == "max" else depth in thirds
                if narrows and reduction > 0:
                    kept = floor(reduction * width)
                    stage.append(_Transition(width, kept, growth_factors[-after:]))
                    width = kept
            stages.append(nn.Sequential(*stage))
            coarsest = width * growth_factors[-1]
            heads.append(_Classifier(coarsest, 128 if form == "cifar" else coarsest, num_classes))
        criterion = _official_thresholds(thresholds, blocks)
        super().__init__(stages, heads, criterion, (3, side, side), name=name, **settings)

    @classmethod
    def from_official(cls, state_dict: Mapping[str, Tensor], **settings: Any) -> MSDNet:
        """From the weights of the official implementation.

        Args:
            state_dict: official names; classes and form (CIFAR, ImageNet) follow from it.
            settings: the arguments of the constructor; the normalisation is the identity unless
                ``mean`` and ``std`` are given.

        Raises:
            UsageError: listing the keys that are missing, surplus or of another shape.
        """
        weights = official_names(state_dict)
        sizes = {
            "num_classes": len(sizing_weight(weights, "classifier.0.linear.weight")),
            "form": "imagenet" if "blocks.0.0.layers.0.0.weight" in weights else "cifar",
        }
        victim = cls(**{**sizes, **settings})
        stages = {f"blocks.{k}.": stage for k, stage in enumerate(victim.stages)}
        heads = {f"classifier.{k}.": head for k, head in enumerate(victim.heads)}
        load_network(weights, {**stages, **heads})
        return victim


def _official_thresholds(
    thresholds: float | Sequence[float] | Criterion, blocks: int
) -> float | Sequence[float] | Criterion:
    if isinstance(thresholds, int | float | Criterion):
        return thresholds
    given = [float(t) for t in thresholds]
    given = given[:-1] if len(given) == blocks else given
    return [{ALWAYS: 0.0, NEVER: 1.0}.get(t, t) for t in given]


def _scales_around(depth: int, layers: int, scales: int, prune: str) -> tuple[int, int]:
    """Number of scales before and after the layer at a depth, counted from 1, of so many layers."""
    if prune == "min":
        return min(scales, layers - depth + 2), min(scales, layers - depth + 1)
    interval = ceil(layers / scales)
    return scales - max(0, depth - 2) // interval, scales - (depth - 1) // interval


def _check_side(side: int, form: str, scales: int) -> None:
    """The 2 x 2 pooling at the end of a classifier must leave one pixel."""
    for _ in range((4 if form == "imagenet" else 2) + scales - 1):
        left = side = -(-side // 2)
    if left not in (2, 3):
        raise UsageError(
            f"images of this size reach the 2 x 2 pooling of a classifier as {left} x {left} with "
            f"{scales} scales ({form} form): it must be 2 x 2 or 3 x 3"
        )


class _Convolution(nn.Module):
    """Convolution, batch norm, ReLU; before it a 1 x 1 one if its relative width is limited."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        self.net = nn.Sequential()
        if bottleneck is not None:
            inner = min(inputs, bottleneck * outputs)
            self.net.extend(_Convolution(inputs, inner, kernel=1).net)
            inputs = inner
        self.net.append(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
        self.net.append(nn.BatchNorm2d(outputs)).append(nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return self.net(features)


class _FirstLayer(nn.Module):
    """The image at every scale, each from the finer one."""

    def __init__(self, widths: Sequence[int], form: str) -> None:
        super().__init__()
        finest: nn.Module = _Convolution(3, widths[0])
        if form == "imagenet":
            convolution = nn.Conv2d(3, widths[0], 7, 2, 3)
            pool = nn.MaxPool2d(3, 2, 1)
            finest = nn.Sequential(convolution, nn.BatchNorm2d(widths[0]), nn.ReLU(), pool)
        coarser = [_Convolution(fine, coarse, stride=2) for fine, coarse in pairwise(widths)]
        self.layers = nn.ModuleList([finest, *coarser])

    def forward(self, features: Tensor) -> list[Tensor]:
        return list(accumulate(self.layers, lambda x, layer: layer(x), initial=features))[1:]


class _Grow(nn.Module):
    """One scale gains channels, half of them from the finer scale where there is one."""

    def __init__(
        self, finer: int | None, same: int, outputs: int, bottlenecks: Sequence[int | None]
    ) -> None:
        super().__init__()
        if finer is not None:
            outputs //= 2
            self.conv_down = _Convolution(finer, outputs, stride=2, bottleneck=bottlenecks[0])
        self.conv_normal = _Convolution(same, outputs, bottleneck=bottlenecks[1])

    def forward(self, finer: Tensor | None, same: Tensor) -> Tensor:
        down = [] if finer is None else [self.conv_down(finer)]
        return cat([same, *down, self.conv_normal(same)], dim=1)


class _Layer(nn.Module):
    """Every scale that is left gains channels; the finest may be dropped.

    Args:
        width: channels of a scale before the layer, relative to its growth factor.
        growth_rate: channels it gains, likewise.
        growth_factors, bottleneck_factors: of the scales before the layer.
        after: number of scales after it.
    """

    def __init__(
        self,
        width: int,
        growth_rate: int,
        growth_factors: Sequence[int],
        bottleneck_factors: Sequence[int | None],
        after: int,
    ) -> None:
        super().__init__()
        self.before = before = len(growth_factors)
        self.layers = nn.ModuleList(
            _Grow(
                width * growth_factors[k - 1] if k else None,
                width * growth_factors[k],
                growth_rate * growth_factors[k],
                (bottleneck_factors[k - 1], bottleneck_factors[k]),
            )
            for k in range(before - after, before)
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        finer = [None, *features[-self.before :]][-len(self.layers) - 1 : -1]
        same = features[-len(self.layers) :]
        return [grow(a, b) for grow, a, b in zip(self.layers, finer, same, strict=True)]


class _Transition(nn.Module):
    """Every scale keeps a share of its channels, through a 1 x 1 convolution."""

    def __init__(self, width: int, kept: int, growth_factors: Sequence[int]) -> None:
        super().__init__()
        self.m = nn.ModuleList(
            _Convolution(width * factor, kept * factor, kernel=1) for factor in growth_factors
        )

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [convolution(x) for convolution, x in zip(self.m, features, strict=True)]


class _Classifier(nn.Module):
    """Reads the coarsest scale alone: two strided convolutions, pooling, one linear layer."""

    def __init__(self, channels: int, inner: int, classes: int) -> None:
        super().__init__()
        self.m = nn.Sequential(
            _Convolution(channels, inner, stride=2),
            _Convolution(inner, inner, stride=2),
            nn.AvgPool2d(2),
        )
        self.linear = nn.Linear(inner, classes)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.linear(self.m(features[-1]).flatten(1))
