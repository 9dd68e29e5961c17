"""Real victims for other benchmarks, as ``module:factory``, on images that they classify right.

    export EFFATTACK_IMAGENET_DATA=nips17 EFFATTACK_IMAGENET_WEIGHTS=weights
    cd benchmarks && python strength.py --victims imagenet_attacked:vit_tiny_ats --images 32 \
        --steps 50 --eps 8/255 --attacks "Slowdown DeSparsify"

``imagenet.py`` says where to get the two folders. Images are of the half that chose no threshold.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from imagenet import crops as seen_by
from imagenet import read
from imagenet_victims import cascades, networks, quantized_victims, token_victims
from torch import Tensor, nn

from effattack import Victim
from effattack.errors import UsageError
from effattack.models_zoo.preprocessing import Preprocess

VIT, SAVER = "ViT-Tiny", "MobileNet-v1-0.5"


def vit_tiny_ats() -> Victim:
    """Training-free ATS, K = 197, in blocks 3 to 11."""
    _, victim = next(iter(token_victims(VIT, _networks()[VIT])))
    return _named(victim, "vit_tiny_ats", "crops")


def vit_tiny_llm_int8() -> Victim:
    """LLM.int8() with its default threshold."""
    *_, (_, victim) = quantized_victims(VIT, _networks()[VIT])
    return _named(victim, "vit_tiny_llm_int8", "crops")


def vit_tiny_cascade() -> Victim:
    """MobileNet-v1-0.5 before the ViT, threshold by TinySaver's rule on the other half."""
    images, labels = read(_folder("DATA"))
    ((_, victim),) = cascades(_networks(), [(SAVER, VIT)], images[::2], labels[::2])
    return _named(victim, "vit_tiny_cascade", "photos")


def photos() -> tuple[Tensor, Tensor]:
    """(B, 3, 299, 299) and (B,): those that the dense ViT classifies right."""
    images, labels = read(_folder("DATA"))
    return _right(_networks()[VIT], images[1::2], labels[1::2])


def seen(first: int) -> tuple[Tensor, Tensor]:
    """(B, 3, 224, 224) and (B,): every other image from the first one on, as the ViT sees it."""
    images, labels = read(_folder("DATA"))
    return seen_by(images[first::2], _networks()[VIT]), labels[first::2]


def crops() -> tuple[Tensor, Tensor]:
    """(B, 3, 224, 224) and (B,): those that the ViT classifies right, with ATS and without."""
    images, labels = read(_folder("DATA"))
    network = _networks()[VIT]
    preprocess, vit = network
    dense = nn.Sequential(Preprocess(preprocess.mean, preprocess.std), vit)
    found = _right(dense, seen_by(images[1::2], network), labels[1::2])
    return _right(vit_tiny_ats(), *found)


def files() -> tuple[Tensor, Tensor]:
    """(B, 3, 299, 299) and (B,): the photographs that ``crops`` are cut from."""
    images, labels = read(_folder("DATA"))
    seen = {crop.numpy().tobytes() for crop in crops()[0]}
    cut = seen_by(images[1::2], _networks()[VIT])
    kept = torch.tensor([crop.numpy().tobytes() in seen for crop in cut])
    return images[1::2][kept], labels[1::2][kept]


def _right(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        guess = torch.cat([model(image[None]).argmax(1) for image in images])
    return images[guess == labels], labels[guess == labels]


def _named(victim: Victim, name: str, data: str) -> Victim:
    victim.name, victim.data = name, f"{__name__}:{data}"
    return victim


def _networks() -> dict[str, nn.Sequential]:
    return networks(_folder("WEIGHTS"))


def _folder(what: str) -> Path:
    variable = f"EFFATTACK_IMAGENET_{what}"
    if not (folder := os.environ.get(variable)):
        raise UsageError(f"set {variable} to the folder that imagenet.py calls --{what.lower()}")
    return Path(folder)


if __name__ == "__main__":
    print(__doc__)
