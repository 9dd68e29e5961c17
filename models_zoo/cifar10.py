"""CIFAR-10 from a folder of the user's: nothing is bundled, nothing is downloaded unasked.

The folder is either one into which torchvision has downloaded the data set
(``torchvision.datasets.CIFAR10(folder, download=True)``), or holds ``train.zip`` and ``test.zip``
with one sub-folder of images per class. 5,000 training images, drawn with a fixed permutation, are
held out for thresholds and calibration.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from effattack.errors import UsageError

SHAPE = (3, 32, 32)
FOLDER = "EFFATTACK_CIFAR10"
"""Environment variable that names the folder where no argument does."""
HELD_OUT = 5000


def cifar10(split: str, folder: str | Path | None = None) -> tuple[Tensor, Tensor]:
    """Images (B, 3, 32, 32), 8-bit levels, and labels (B,) of "train", "heldout" or "test".

    Raises:
        UsageError: if the folder is not named, or does not hold the data set.
    """
    if folder is None and not (folder := os.environ.get(FOLDER)):
        raise UsageError(
            f"CIFAR-10 is not bundled: set {FOLDER} to a folder with the data set "
            "(torchvision.datasets.CIFAR10(folder, download=True) fills one)"
        )
    folder = Path(folder)
    zipped = folder / f"{'test' if split == 'test' else 'train'}.zip"
    images, labels = _from_zip(zipped) if zipped.exists() else _from_torchvision(folder, split)
    if split == "test":
        return images, labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rows = order[:HELD_OUT] if split == "heldout" else order[HELD_OUT:]
    return images[rows], labels[rows]


def scored_images() -> tuple[Tensor, Tensor]:
    """The test images, float in [0, 1], that CIFAR-10 victims are scored on."""
    images, labels = cifar10("test")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return images[order].float() / 255, labels[order]


def _from_zip(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with ZipFile(path) as archive:
            files = sorted(name for name in archive.namelist() if not name.endswith("/"))
            classes = sorted({Path(name).parent.name for name in files})
            pixels = [np.array(Image.open(BytesIO(archive.read(name)))) for name in files]
    except (BadZipFile, OSError) as error:
        raise UsageError(f"cannot read {path} ({error}): download it again") from error
    labels = [classes.index(Path(name).parent.name) for name in files]
    return _tensors(np.stack(pixels), labels)


def _from_torchvision(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    try:
        found = CIFAR10(str(folder), train=split != "test", download=False)
    except RuntimeError as error:
        raise UsageError(
            f"{folder} holds neither train.zip and test.zip nor torchvision's CIFAR-10: fill it "
            "with torchvision.datasets.CIFAR10(folder, download=True)"
        ) from error
    return _tensors(found.data, found.targets)


def _tensors(pixels: np.ndarray, labels: list[int]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
