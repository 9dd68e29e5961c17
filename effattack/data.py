"""Images and labels from a path or a factory, in the form that :mod:`effattack.images` checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from effattack.errors import UsageError
from effattack.images import check_images, check_labels, fingerprints
from effattack.registry import call, import_factory
from effattack.victim import Victim


def load_data(source: str | None, victim: Victim) -> tuple[Tensor, Tensor]:
    """Images (B, *input_shape) and labels (B,) for a victim.

    Args:
        source: a folder with one sub-folder of images per class (classes in alphabetical order),
            an ``.npz`` file with ``images`` and ``labels``, or ``module:factory`` of a callable
            that returns both. None: the victim's own data.
        victim: whose input shape and classes the data must fit.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    source = source or victim.data
    if source is None:
        raise UsageError(
            f"{victim.name} brings no data of its own: give --data an image folder by class, an "
            ".npz with images and labels, or module:factory"
        )
    path = Path(source)
    if path.suffix == ".npz":
        images, labels = _from_npz(path)
    elif path.is_dir():
        images, labels = _from_folder(path, victim)
    elif ":" in source:
        images, labels = _from_factory(source)
    else:
        raise UsageError(
            f"data {source!r}: no such folder or .npz file; a callable is named module:factory"
        )
    check_images(images, victim.input_shape)
    check_labels(labels, len(images), victim.num_classes)
    return images, labels


def subset(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``count`` of the images, evenly spread over their order; all of them if there are fewer.

    Raises:
        UsageError: for a count below 1.
    """
    if count < 1:
        raise UsageError(f"--samples {count}: score at least one image")
    if count >= len(images):
        return images, labels
    rows = torch.arange(count) * len(images) // count
    return images[rows], labels[rows]


def held_out(images: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor] | None:
    """What universal attacks learn from when no data is given for it: images not in ``subset``.

    As many as are scored, evenly spread over the rest; none equal to a scored one. None where
    nothing is left.
    """
    if count >= len(images):
        return None
    scored = torch.zeros(len(images), dtype=torch.bool)
    scored[torch.arange(count) * len(images) // count] = True
    seen = set(fingerprints(images[scored]))
    others = (~scored).nonzero()[:, 0]
    new = [key not in seen for key in fingerprints(images[others])]
    rest = others[torch.tensor(new)]
    return subset(images[rest], labels[rest], count) if len(rest) else None


def _from_npz(path: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels = file["images"], file["labels"]
    except (OSError, ValueError, KeyError, EOFError, AttributeError, BadZipFile) as error:
        raise UsageError(
            f"cannot read {path} ({error}): it must be an .npz with arrays 'images' (B, C, H, W) "
            "and 'labels' (B,)"
        ) from error
    return _tensors(images, labels, str(path))


def _from_folder(folder: Path, victim: Victim) -> tuple[Tensor, Tensor]:
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    images, labels = [], []
    for label, entry in enumerate(classes):
        for file in sorted(p for p in entry.iterdir() if p.is_file() and p.name[0] != "."):
            images.append(_read_image(file, victim.input_shape))
            labels.append(label)
    if not images:
        raise UsageError(f"{folder} holds no images: make one sub-folder of images per class")
    return torch.stack(images), torch.tensor(labels)


def _read_image(file: Path, shape: tuple[int, ...]) -> Tensor:
    try:
        with Image.open(file) as picture:
            if picture.mode.startswith("I"):
                raise UsageError(f"{file} has 16 bits a pixel: convert it to 8 bits")
            pixels = np.array(picture.convert("L" if shape[0] == 1 else "RGB"), dtype=np.float32)
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"cannot read {file} as an image: remove or repair it") from error
    image = torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1) / 255
    if tuple(image.shape) != tuple(shape):
        raise UsageError(
            f"{file} has shape {tuple(image.shape)}, the victim takes {tuple(shape)}: resize the "
            "images, or resize inside the victim and give its input_shape accordingly"
        )
    return image


def _from_factory(source: str) -> tuple[Tensor, Tensor]:
    found = call(import_factory(source), source)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise UsageError(f"{source} must return images and labels, not {type(found).__name__}")
    return _tensors(found[0], found[1], source)


def _tensors(images: Any, labels: Any, source: str) -> tuple[Tensor, Tensor]:
    try:
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"images and labels of {source} are no arrays of numbers ({error}): give float images "
            "and integer labels"
        ) from error
    integer = not labels.is_floating_point() and labels.dtype != torch.bool
    return images, labels.long() if integer else labels
