"""SDN: internal classifiers on a ResNet or a VGG; the first one that is sure answers.

Kaya, Hong and Dumitras, "Shallow-Deep Networks: Understanding and Mitigating Network
Overthinking", ICML 2019 (arXiv 1810.07052). State dicts of the official code, and of DeepSloth's
copy of it (https://github.com/Sanghyun-Hong/DeepSloth, MIT), load as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.errors import UsageError, unknown_name
from effattack.models_zoo.criteria import Criterion
from effattack.models_zoo.early_exit.early_exit import (
    EarlyExit,
    load_network,
    sizing_weight,
)
from effattack.models_zoo.official import official_names
from effattack.victim.margins import confidence_log_odds


class SDN(EarlyExit):
    """A ResNet or VGG for small square images, with internal classifiers.

    The whole network has run where no classifier was sure, whichever of them answers then.

    Args:
        architecture: "resnet" (needs ``blocks``) or "vgg" (needs ``conv_channels``, ``fc_layers``
            and ``max_pool_sizes``).
        exits: 0 or 1 per block: nested per group of blocks (resnet), or flat over the convolutions
            and the fully connected layers but the last (vgg).
        threshold: confidence at which to leave, or one of ``effattack.models_zoo.criteria``.
        fallback: who answers if no classifier was sure: "last" (DeepSloth), or "most confident" of
            all, the final one included (the SDN paper).
        blocks: residual blocks of each group; every group but the first halves the image.
        width: channels of the first group, doubled by each later one.
        conv_channels: of the convolutions.
        fc_layers: widths of the fully connected layers before the final classifier.
        max_pool_sizes: pooling after each convolution, 1 for none.
        batch_norm: of the VGG form.
        num_classes: width of the logits.
        input_size: side of the images in pixels; a ResNet halves images of 64 and more at once.
        settings: ``mean``, ``std``, ``data``.

    Raises:
        UsageError: for an unknown architecture or fallback, sizes that do not fit together, or
            thresholds outside their range.
    """

    def __init__(
        self,
        architecture: str,
        *,
        exits: Sequence[Any],
        threshold: float | Sequence[float] | Criterion,
        fallback: str = "last",
        blocks: Sequence[int] = (),
        width: int = 16,
        conv_channels: Sequence[int] = (),
        fc_layers: Sequence[int] = (),
        max_pool_sizes: Sequence[int] = (),
        batch_norm: bool = True,
        num_classes: int = 10,
        input_size: int = 32,
        name: str = "SDN",
        **settings: Any,
    ) -> None:
        if fallback not in (fallbacks := ("last", "most confident")):
            raise unknown_name("fallback", fallback, fallbacks)
        if architecture == "resnet":
            network = _resnet(blocks, exits, width, num_classes, input_size)
        elif architecture == "vgg":
            convolutions = (conv_channels, max_pool_sizes, batch_norm)
            network = _vgg(convolutions, fc_layers, exits, num_classes, input_size)
        else:
            raise unknown_name("architecture", architecture, ("resnet", "vgg"))
        shape = (3, input_size, input_size)
        super().__init__(network.stages, network.heads, threshold, shape, name=name, **settings)
        self.fallback = fallback
        self._official = network.official

    @classmethod
    def from_official(
        cls, state_dict: Mapping[str, Tensor], *, architecture: str, **settings: Any
    ) -> SDN:
        """From the weights of the official implementation.

        Args:
            state_dict: official names; classes, width, batch norm and (vgg) image size follow from
                it.
            architecture: "resnet" or "vgg".
            settings: the arguments of the constructor; the normalisation is the identity unless
                ``mean`` and ``std`` are given.

        Raises:
            UsageError: listing the keys that are missing, surplus or of another shape.
        """
        weights = official_names(state_dict)
        sizes: dict[str, Any] = {"num_classes": len(sizing_weight(weights, "end_layers.2.weight"))}
        if architecture == "resnet":
            sizes["width"] = len(sizing_weight(weights, "init_conv.0.weight"))
        elif architecture == "vgg" and settings.get("conv_channels") and settings.get("fc_layers"):
            sizes["batch_norm"] = "layers.0.layers.1.running_mean" in weights
            sizes["input_size"] = _vgg_input_size(weights, **settings)
        victim = cls(architecture, **{**sizes, **settings})
        load_network(weights, victim._official)
        return victim

    def unsure(self, stage_logits: Tensor) -> Tensor:
        if self.fallback == "last":
            return super().unsure(stage_logits)
        best = confidence_log_odds(stage_logits).argmax(1)
        return stage_logits[torch.arange(len(best), device=best.device), best]


class InternalClassifier(nn.Module):
    """Max and average pooling to about 4 x 4, mixed by a learned share, then one linear layer."""

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.kernel = size // 4
        if self.kernel:
            self.alpha = nn.Parameter(torch.rand(1))
            size //= self.kernel
        self.linear = nn.Linear(channels * size * size, classes)

    def forward(self, features: Tensor) -> Tensor:
        if self.kernel:
            largest = F.max_pool2d(features, self.kernel)
            average = F.avg_pool2d(features, self.kernel)
            features = self.alpha * largest + (1 - self.alpha) * average
        return self.linear(features.flatten(1))


class _Residual(nn.ModuleList):
    """Two convolutions plus shortcut, up to the sum before the ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        same = stride == 1 and inputs == outputs
        shortcut = () if same else _convolution(inputs, outputs, stride, kernel=1)
        body = (*_convolution(inputs, outputs, stride), nn.ReLU(), *_convolution(outputs, outputs))
        super().__init__([nn.Sequential(*body), nn.Sequential(*shortcut)])

    def forward(self, features: Tensor) -> Tensor:
        return self[0](features) + self[1](features)


def _convolution(
    inputs: int, outputs: int, stride: int = 1, kernel: int = 3
) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class _Network:
    """Stages and heads under construction, and the official prefix of every part."""

    def __init__(self) -> None:
        self.stages: list[nn.Module] = []
        self.heads: list[nn.Module] = []
        self.official: dict[str, nn.Module] = {}
        self._stage: list[nn.Module] = []

    def add(self, module: nn.Module, official: str | None = None) -> None:
        """Append to the current stage."""
        self._stage.append(module)
        if official is not None:
            self.official[official] = module

    def exit(self, head: nn.Module, official: str) -> None:
        """End the current stage with a classifier."""
        self.stages.append(nn.Sequential(*self._stage))
        self.heads.append(head)
        self.official[official] = head
        self._stage = []


def _resnet(
    blocks: Sequence[int], exits: Sequence[Any], width: int, classes: int, size: int
) -> _Network:
    """A classifier reads the sum of its block before the ReLU, so that the next stage starts there.

    (The official code's ``early_exit`` does so; its ``only_output`` does not.)
    """
    given = [len(flags) if isinstance(flags, Sequence) else None for flags in exits]
    if not blocks or given != list(blocks):
        raise UsageError(f"exits {exits} for blocks {blocks}: give a list of 0 and 1 per group")
    network = _Network()
    stride = 2 if size >= 64 else 1
    stem = nn.Sequential(*_convolution(3, width, stride), nn.ReLU())
    network.add(stem, "init_conv.")
    size, inputs, index = -(-size // stride), width, 0
    for group, flags in enumerate(exits):
        for position, flag in enumerate(flags):
            stride = 2 if group and not position else 1
            outputs, size = width * 2**group, -(-size // stride)
            network.add(_Residual(inputs, outputs, stride), f"layers.{index}.layers.")
            if flag:
                head = InternalClassifier(outputs, size, classes)
                network.exit(head, f"layers.{index}.output.")
            network.add(nn.ReLU())
            inputs, index = outputs, index + 1
    network.add(nn.AdaptiveAvgPool2d(1))
    network.add(nn.Flatten())
    network.exit(nn.Linear(inputs, classes), "end_layers.2.")
    return network


def _vgg(
    convolutions: tuple[Sequence[int], Sequence[int], bool],
    fc_layers: Sequence[int],
    exits: Sequence[int],
    classes: int,
    size: int,
) -> _Network:
    """A classifier reads its block after ReLU and pooling; those of linear blocks are linear."""
    channels, pools, batch_norm = convolutions
    if not channels or not fc_layers or len(channels) != len(pools):
        raise UsageError(
            f"conv_channels {channels}, max_pool_sizes {pools}, fc_layers {fc_layers}: the first "
            "two must have the same length, and none may be empty"
        )
    if len(exits) != len(channels) + len(fc_layers) - 1:
        raise UsageError(
            f"{len(exits)} exits for {len(channels)} convolutions and {len(fc_layers) - 1} fully "
            "connected layers before the last: give 0 or 1 for each"
        )
    network, inputs = _Network(), 3
    for index, (outputs, pool) in enumerate(zip(channels, pools, strict=True)):
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        block = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU())
        network.add(block, f"layers.{index}.layers.")
        if pool > 1:
            network.add(nn.MaxPool2d(pool))
        inputs, size = outputs, size // pool
        if exits[index]:
            head: nn.Module = InternalClassifier(inputs, size, classes)
            network.exit(head, f"layers.{index}.output.")
    network.add(nn.Flatten())
    inputs *= size * size
    for index, width in enumerate(fc_layers[:-1], start=len(channels)):
        linear = nn.Linear(inputs, width)
        position = 1 if index == len(channels) else 0  # officially, the first one flattens
        network.add(linear, f"layers.{index}.layers.{position}.")
        network.add(nn.ReLU())
        network.add(nn.Dropout(0.5))
        inputs = width
        if exits[index]:
            network.exit(nn.Linear(inputs, classes), f"layers.{index}.output.")
    network.add(nn.Linear(inputs, fc_layers[-1]), "end_layers.0.")
    network.add(nn.Dropout(0.5))
    network.exit(nn.Linear(fc_layers[-1], classes), "end_layers.2.")
    return network


def _vgg_input_size(
    weights: Mapping[str, Tensor],
    *,
    conv_channels: Sequence[int],
    fc_layers: Sequence[int],
    max_pool_sizes: Sequence[int] = (),
    **_: Any,
) -> int:
    """The image side that the first fully connected layer was built for."""
    first = f"layers.{len(conv_channels)}.layers.1" if len(fc_layers) > 1 else "end_layers.0"
    features = sizing_weight(weights, f"{first}.weight").shape[1]
    return isqrt(features // conv_channels[-1]) * prod(max_pool_sizes)
