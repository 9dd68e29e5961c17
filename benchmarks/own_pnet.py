"""A P-Net of our own, for an attacker who has never seen the detector's weights.

The architecture is public; the weights are trained in half a minute on what comes with
scikit-image: 80 of the 100 faces of its subset of Labeled Faces in the Wild (Huang et al. 2007,
25 x 25 grey pixels) against 80 of its 100 other crops and windows of photographs without a face.
``python benchmarks/own_pnet.py`` says how many of the other 40 crops it tells apart.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor
from torch.nn import functional as F

from effattack.models_zoo.detection.mtcnn import MTCNN
from effattack.models_zoo.detection.mtcnn_boxes import WINDOW
from effattack.models_zoo.detection.mtcnn_networks import Network, Networks, untrained

STEPS, BATCH, RATE = 1500, 64, 1e-3
"""Of Adam; each step sees as many faces as windows of each other kind."""
TRAINED_ON = 80
FACELESS = ("coffee", "chelsea", "rocket", "brick", "grass", "gravel")
"""Pictures of ``skimage.data`` without a face."""
Pictures = list[Tensor]


def own_source(shape: tuple[int, int, int]) -> MTCNN:
    """An MTCNN of images of one shape: our P-Net, and an R-Net that refuses all it is asked."""
    networks = untrained()
    with torch.no_grad():
        networks.refinement.heads[0].bias.copy_(torch.tensor([1e3, -1e3]))
    return MTCNN(Networks(own_pnet(), *networks[1:]), shape, name="MTCNN, our own P-Net")


@cache
def own_pnet() -> Network:
    """Trained anew; the global random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pnet = untrained().proposal
    generator = Generator().manual_seed(0)
    faces, others = (crops[:TRAINED_ON] for crops in labelled_crops())
    pictures = faceless_pictures()
    labels = torch.arange(3).repeat_interleave(BATCH) == 0
    optimizer = torch.optim.Adam(pnet.parameters(), RATE)
    for _ in range(STEPS):
        shown = [*drawn(faces, generator), *drawn(others, generator), *cut(pictures, generator)]
        loss = F.cross_entropy(logits(pnet, disturbed(shown, generator)), labels.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return pnet.eval()


def logits(pnet: Network, windows: Tensor) -> Tensor:
    """(n, 3, 12, 12) in [0, 1] -> (n, 2)."""
    return pnet((windows * 255 - 127.5) * 0.0078125)[0].flatten(1)


def labelled_crops() -> tuple[Tensor, Tensor]:
    """(100, 3, 25, 25) each, in [0, 1]: faces, and what is none."""
    crops = torch.from_numpy(import_module("skimage.data").lfw_subset()).float()
    faces, others = crops[:, None].expand(-1, 3, -1, -1).split(100)
    return faces, others


def faceless_pictures() -> Pictures:
    """(3, H, W) each, in [0, 1]."""
    data = import_module("skimage.data")
    pictures = [getattr(data, name)() for name in FACELESS] + load_sample_images().images
    coloured = [np.dstack([p] * 3) if p.ndim == 2 else p for p in pictures]
    return [torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p in coloured]


def drawn(crops: Tensor, generator: Generator) -> Pictures:
    """Some crops, each less up to 4 pixels at its edges."""
    which = torch.randint(len(crops), (BATCH,), generator=generator)
    edges = torch.randint(0, 5, (BATCH, 2), generator=generator).tolist()
    places = zip(crops[which], edges, strict=True)
    return [crop[:, top : top + 21, left : left + 21] for crop, (top, left) in places]


def cut(pictures: Pictures, generator: Generator) -> Pictures:
    """Some windows, of 12 to 120 pixels."""
    windows = []
    for which, *place in torch.rand(BATCH, 4, generator=generator).tolist():
        picture = pictures[int(which * len(pictures))]
        side = int(WINDOW * 10 ** place[0])
        top, left = (int(p * (s - side)) for p, s in zip(place[1:], picture.shape[1:], strict=True))
        windows.append(picture[:, top : top + side, left : left + side])
    return windows


def disturbed(windows: Pictures, generator: Generator) -> Tensor:
    """(n, 3, 12, 12): averaged to the size of a window, mirrored or not, in other light."""
    small = torch.cat(
        [F.interpolate(each[None], (WINDOW, WINDOW), mode="area") for each in windows]
    )
    mirrored = torch.rand(len(small), 1, 1, 1, generator=generator) < 0.5
    contrast = torch.rand(len(small), 1, 1, 1, generator=generator) * 0.8 + 0.5
    tint = torch.rand(len(small), 3, 1, 1, generator=generator) * 0.3 - 0.15
    small = torch.where(mirrored, small.flip(3), small)
    return ((small - 0.5) * contrast + 0.5 + tint).clamp(0, 1)


def main() -> None:
    torch.set_num_threads(1)
    pnet = own_pnet()
    for name, crops, said in zip(("faces", "others"), labelled_crops(), (1, 0), strict=True):
        held_out = F.interpolate(crops[TRAINED_ON:], (WINDOW, WINDOW), mode="area")
        with torch.no_grad():
            right = int((logits(pnet, held_out).argmax(1) == said).sum())
        print(f"{name}: {right} of {len(held_out)} held-out crops are told")


if __name__ == "__main__":
    main()
