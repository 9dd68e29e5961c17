"""What ``gpu.py`` measures: one victim per family at ImageNet size, each beside its static twin.

Random weights: how long a product takes does not depend on what is multiplied. What the gates say
is imposed by setting their thresholds on a few images, and moves when an image is attacked. Where
images and weights are given, the families that need no training stand there a second time, on
networks trained on ImageNet, whose decisions are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from deployed_victims import PRUNING_BLOCKS, calibrate, deit_s, dropping, share_kept
from imagenet import crops, read
from imagenet_victims import PHOTO, cascades, networks, quantized_victims, token_victims
from timm import create_model
from torch import Tensor, nn

from effattack import Opaque, Victim
from effattack.models_zoo import DynamicViT, ExitViT, LLMInt8, SkipNet, TinySaver
from effattack.models_zoo.layer_skipping.skipnet import PooledGate

SHAPE = (3, 224, 224)


class Case(NamedTuple):
    """One victim, and what it stands for."""

    name: str
    weights: str
    """``"random"`` or ``"trained"``."""
    victim: Victim
    twin: Victim
    """The model without the mechanism: the same work whatever it sees."""
    images: Tensor
    """(N, *input_shape) in [0, 1]."""


def random_cases(images: Tensor) -> Iterator[tuple[str, Callable[[], Case]]]:
    """Every family, by name, to be made one at a time; images (N, 3, 224, 224)."""
    makers = {
        "DynamicViT, DeiT-S": _dynamicvit,
        "ExitViT, DeiT-S": _exit_vit,
        "SkipNet, ResNet-50": _skipnet,
        "TinySaver, MobileNet-v3-small → DeiT-S": _cascade,
        "LLM.int8(), DeiT-S": _llm_int8,
    }
    for name, make in makers.items():

        def case(name: str = name, make: Callable = make) -> Case:
            torch.manual_seed(0)
            victim, twin = make(images[:8])
            return Case(name, "random", victim, twin, images)

        yield name, case


def trained_cases(data: Path, weights: Path) -> Iterator[tuple[str, Callable[[], Case]]]:
    """The same on ViT-Tiny and a MobileNet, of the images whose thresholds were not chosen on."""
    pixels, labels = read(data)
    found = networks(weights)
    *_, saver, vit = found
    chosen, scored = pixels[::2], pixels[1::2]
    dense = Opaque(found[vit], PHOTO)
    seen = crops(scored, found[vit])
    plain = Opaque(nn.Sequential(*_normalised(found[vit])), tuple(seen.shape[1:]))

    def on_vit(made: tuple[str, Victim]) -> Case:
        return Case(made[0], "trained", made[1], plain, seen)

    def cascade() -> Case:
        name, victim = next(cascades(found, [(saver, vit)], chosen, labels[::2]))
        return Case(name, "trained", victim, dense, scored)

    yield f"ATS, {vit}", lambda: on_vit(next(token_victims(vit, found[vit])))
    yield f"TinySaver, {saver} → {vit}", cascade
    yield f"LLM.int8(), {vit}", lambda: on_vit([*quantized_victims(vit, found[vit])][-1])


def _dynamicvit(few: Tensor) -> tuple[Victim, Victim]:
    """Each of three predictors keeps 70 % of the tokens that it sees."""
    victim = DynamicViT(deit_s(), pruning_blocks=PRUNING_BLOCKS, rule="threshold")
    return dropping(victim, few), Opaque(deit_s(), SHAPE)


def _exit_vit(few: Tensor) -> tuple[Victim, Victim]:
    """Half of the images that reach an exit leave there."""
    vit = deit_s()
    victim = ExitViT(vit, exit_blocks=(3, 7), criterion=0.5)
    with torch.no_grad():
        stages = victim.trace(few).stage_logits
    assert stages is not None
    limits = stages[:, :-1].softmax(2).amax(2).median(0).values.tolist()
    heads = [victim.heads[k].head for k in range(2)]
    halved = ExitViT(vit, exit_blocks=(3, 7), criterion=limits, exit_heads=heads)
    return halved, Opaque(vit, SHAPE)


def _skipnet(few: Tensor) -> tuple[Victim, Victim]:
    """60 % of the images run a block; the first of a stage changes the shape, and always runs."""
    net = create_model("resnet50").eval()
    stem = nn.Sequential(net.conv1, net.bn1, net.act1, net.maxpool)
    stages = (net.layer1, net.layer2, net.layer3, net.layer4)
    blocks = [block for stage in stages for block in stage]
    for block in blocks:  # at initialisation a residual branch adds nothing
        nn.init.ones_(block.bn3.weight)
    gates = [
        None if block.downsample is not None else PooledGate(block.conv1.in_channels)
        for block in blocks
    ]
    head = nn.Sequential(net.global_pool, net.fc)
    victim = SkipNet(stem, blocks, gates, head, SHAPE)
    hooks = [share_kept(gate.linear, 0.6, 0.0, lambda z: z) for gate in victim.gates.values()]
    calibrate(victim, few, hooks)
    return victim, Opaque(nn.Sequential(stem, *blocks, head), SHAPE)


def _cascade(few: Tensor) -> tuple[Victim, Victim]:
    """The saver answers half of the images."""
    saver, base = create_model("mobilenetv3_small_050").eval(), deit_s()
    with torch.no_grad():
        limit = saver(few).softmax(1).amax(1).median().item()
    return TinySaver(saver, base, limit, SHAPE), Opaque(base, SHAPE)


def _llm_int8(few: Tensor) -> tuple[Victim, Victim]:
    """θ = 3: random weights make no outliers of 6."""
    return LLMInt8(deit_s(), SHAPE, threshold=3.0), Opaque(deit_s(), SHAPE)


def _normalised(network: nn.Sequential) -> tuple[nn.Module, nn.Module]:
    """Of a network that resizes for itself, its normalisation alone, and the model."""
    preprocess, model = network
    return type(preprocess)(preprocess.mean, preprocess.std), model
