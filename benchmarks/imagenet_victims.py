"""The real victims: four families on networks that were trained on ImageNet.

A network here is its own preprocessing and a model in a row, so that it takes images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import load_file
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import Tensor, nn

from effattack import Opaque, Victim
from effattack.errors import UsageError
from effattack.models_zoo import ATS, EViT, LLMInt8, Quantized, TinySaver, ToMe
from effattack.models_zoo.cascade.cascade import saver_threshold
from effattack.models_zoo.preprocessing import Preprocess, preprocessed

PHOTO = (3, 299, 299)
"""What cascades take: images as they are stored. Each model resizes for itself."""

Named = Iterator[tuple[str, Victim]]


class Local(NamedTuple):
    """A network whose weights lie in a file."""

    file: str
    build: Callable[[], nn.Module]
    sizes: dict[str, Any]


_V1 = partial(_gen_mobilenet_v1, "mobilenetv1_100", pad_type="same")
_LINEAR: dict[str, Any] = {"interpolation": "bilinear"}
LOCAL = {
    "MobileNet-v1-0.25": Local(
        "mobilenet/mobilenet_v1_0.25_128_quant.safetensors",
        partial(_V1, 0.25),
        {"resize": 146, "crop": 128, **_LINEAR},
    ),
    "MobileNet-v1-0.5": Local(
        "mobilenet/mobilenet_v1_0.5_160_quant.safetensors",
        partial(_V1, 0.5),
        {"resize": 183, "crop": 160, **_LINEAR},
    ),
    "MobileNet-v2": Local(
        "mobilenet/mobilenet_v2_1.0_224_quant.safetensors",
        partial(timm.create_model, "mobilenetv2_100", pad_type="same"),
        {"resize": 256, "crop": 224, **_LINEAR},
    ),
    "ViT-Tiny": Local(
        "vit_tiny_patch16_224/model.safetensors",
        partial(timm.create_model, "vit_tiny_patch16_224"),
        {"resize": 248, "crop": 224},
    ),
}
HUB = ("mobilenetv3_small_050", "mobilenetv3_small_100", "mobilenetv2_100", "vit_tiny_patch16_224")


def networks(weights: Path | None) -> dict[str, nn.Sequential]:
    """Three savers, cheapest first, and a ViT.

    Args:
        weights: folder of the files in ``LOCAL``; None: timm downloads the models in ``HUB``.

    Raises:
        UsageError: if a file is missing, or no hub can be reached.
    """
    if weights is not None:
        return {name: _local(source, weights) for name, source in LOCAL.items()}
    try:
        return {name: preprocessed(timm.create_model(name, pretrained=True)) for name in HUB}
    except (OSError, RuntimeError) as error:
        raise UsageError(
            f"timm cannot download pretrained weights ({type(error).__name__}): reach a hub, or "
            "give a folder of weights with --weights"
        ) from error


def _local(source: Local, folder: Path) -> nn.Sequential:
    path = folder / source.file
    if not path.exists():
        raise UsageError(f"{path} is missing: --weights is the folder that {source.file} lies in")
    model = source.build()
    model.load_state_dict(load_file(path))
    return nn.Sequential(Preprocess(0.5, 0.5, **source.sizes), model).eval()


def victims(found: dict[str, nn.Sequential], images: Tensor, labels: Tensor) -> Named:
    """The rows of the table, name and victim, built one at a time.

    Args:
        found: of ``networks``.
        images, labels: held out, (B, 3, 299, 299) and (B,); TinySaver's thresholds are chosen here.
    """
    *savers, vit = found
    pairs = [*((saver, vit) for saver in savers), (savers[0], savers[-1])]
    dense = ((f"{name}, dense", Opaque(network, PHOTO)) for name, network in found.items())
    yield from chain(
        dense,
        token_victims(vit, found[vit]),
        quantized_victims(vit, found[vit]),
        cascades(found, pairs, images, labels),
    )


def token_victims(name: str, network: nn.Sequential) -> Named:
    """They wrap the ViT itself, and take the images that it sees, before normalisation."""
    preprocess, vit = network
    seen = {"mean": preprocess.mean.flatten().tolist(), "std": preprocess.std.flatten().tolist()}
    yield (
        f"ATS, {name}, blocks 3–11, K = 197",
        ATS(vit, ats_blocks=range(3, 12), reference_tokens=197, **seen),
    )
    for r in (8, 13):
        yield f"ToMe, {name}, r = {r}", ToMe(vit, r=r, **seen)
    for rate in (0.7, 0.5):
        rates = [rate if block in (3, 6, 9) else 1.0 for block in range(12)]
        yield f"EViT, {name}, rate {rate}", EViT(vit, keep_rates=rates, **seen)


def quantized_victims(name: str, network: nn.Sequential) -> Named:
    """The linear layers of the ViT in int8."""
    preprocess, vit = network
    model = nn.Sequential(Preprocess(preprocess.mean, preprocess.std), vit)
    for scheme in ("int8_dynamic", "int8_weight_only"):
        yield f"{scheme}, {name}", Quantized(model, vit_shape(network), scheme=scheme)
    yield f"LLM.int8(), {name}, θ = 6", LLMInt8(model, vit_shape(network), threshold=6.0)


def vit_shape(network: nn.Sequential) -> tuple[int, ...]:
    """(C, H, W) of the images that the ViT sees."""
    embed = network[1].patch_embed
    return (embed.proj.in_channels, *embed.img_size)


def cascades(
    found: dict[str, nn.Sequential], pairs: list[tuple[str, str]], images: Tensor, labels: Tensor
) -> Named:
    """TinySaver cascades of pairs (saver, base), thresholds by TinySaver's rule."""
    with torch.no_grad():
        logits = {
            name: torch.cat([found[name](batch) for batch in images.split(25)])
            for name in dict.fromkeys(chain(*pairs))
        }
    for saver, base in pairs:
        threshold = saver_threshold(logits[saver], logits[base], labels)
        name = f"TinySaver, {saver} → {base}, t = {threshold:.3f}"
        yield name, TinySaver(found[saver], found[base], threshold, PHOTO)
