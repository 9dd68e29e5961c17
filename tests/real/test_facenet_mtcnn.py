"""MTCNN beside ``detect_face`` of facenet-pytorch, on photographs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from effattack.attacks import Noise, Slowdown
from effattack.models_zoo import MTCNN
from effattack.victim import audit

HEIGHT, WIDTH = 240, 320
COUNT = 50

Detect = Callable[[Tensor], tuple[Tensor, Counter[str]]]


@pytest.fixture(scope="module")
def victim(facenet: None) -> MTCNN:
    return MTCNN.from_facenet()


@pytest.fixture(scope="module")
def detect(facenet: None) -> Detect:
    """An image (1, 3, H, W) -> faces (n, 5) and crops per network, as the package finds them."""
    shipped = import_module("facenet_pytorch.models.mtcnn")
    networks = {name: getattr(shipped, name)().eval() for name in ("PNet", "RNet", "ONet")}
    crops: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: crops.update({name: len(inputs[0])})

    for name in ("RNet", "ONet"):
        networks[name].register_forward_hook(count(name))

    def run(image: Tensor) -> tuple[Tensor, Counter[str]]:
        crops.clear()
        pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8)
        with torch.no_grad():
            boxes, _ = shipped.detect_face(
                pixels.numpy(), 20, *networks.values(), [0.6, 0.7, 0.7], 0.709, torch.device("cpu")
            )
        return torch.tensor(np.array(boxes[0], dtype=np.float32)).view(-1, 5), Counter(crops)

    return run


def photographs() -> Iterator[Tensor]:
    """Those of a folder, or parts of scikit-learn's two, also turned around: (1, 3, 240, 320)."""
    folder = os.environ.get("EFFATTACK_NIPS17")
    if folder is not None:
        for file in sorted(Path(folder).iterdir()):
            with Image.open(file) as image:
                yield as_input(image.convert("RGB"))
        return
    pictures = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    for step in range(15):
        for picture in pictures:
            side = step * 18
            part = picture.crop((side, side // 2, picture.width - side // 3, picture.height - side))
            yield as_input(part)
            yield as_input(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT))


def as_input(picture: Image.Image) -> Tensor:
    pixels = np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)).copy()
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_boxes_and_crops_are_those_of_the_package(victim: MTCNN, detect: Detect) -> None:
    seen, refined = 0, 0
    for image in islice(photographs(), COUNT):
        faces, crops = detect(image)
        with torch.no_grad():
            trace = victim.trace(image)
            found = victim(image)
        asked = int(trace.gates[1].reached.sum())
        assert (asked, int(trace.also["crops"]) - asked) == (crops["RNet"], crops["ONet"])
        assert found.shape[1] == len(faces)
        assert torch.allclose(found[0, :, :5], faces, atol=1e-3)
        assert torch.allclose(trace.logits, found, atol=1e-3)
        seen, refined = seen + 1, refined + asked
    assert seen == COUNT
    assert refined > 10 * COUNT, "photographs without anything to look at show nothing"


def test_an_attacked_photograph_is_read_alike(victim: MTCNN, detect: Detect) -> None:
    """Hundreds of crops, where a clean photograph has some, and each is paid for."""
    image = next(photographs())
    slow = Slowdown(victim, eps=8 / 255, steps=6)(image, victim(image))
    noisy = Noise(victim, eps=8 / 255)(image, victim(image))
    found = audit(victim, torch.cat([image, noisy, slow]))
    assert found.macs[2] > 3 * found.macs[0]
    assert found.macs[1] < 1.5 * found.macs[0]
    faces, crops = detect(slow)
    assert crops.total() == found.counts["crops"][2]
    assert crops["RNet"] > 200
    shown = victim(slow)
    assert torch.allclose(shown[0, :, :5], faces, atol=1e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("facenet")
def test_the_package_is_not_imported() -> None:
    """Its pins are old: only its files are read."""
    code = (
        "import sys; from effattack.models_zoo import MTCNN; MTCNN.from_facenet(); "
        "sys.exit('facenet_pytorch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
