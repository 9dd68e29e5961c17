"""Where images come from, one slice at a time: memory stays flat in their number.

A slice is read when a cell needs it, in whichever process runs the cell, and must be the same every
time; nothing here shuffles.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import SequentialSampler, default_collate

from effattack.errors import UsageError


class Data(ABC):
    """Images and labels that can be read in part, in any order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and labels (B,) of these indices, in this order."""

    def read(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Images and labels from ``first`` up to ``last``; fewer, or none, at the end."""
        return self.rows(range(min(first, len(self)), min(last, len(self))))

    def whole(self) -> tuple[Tensor, Tensor]:
        """All images and labels at once, in memory."""
        return self.read(0, sys.maxsize)


class Arrays(Data):
    """Tensors, or arrays that may lie on the disk."""

    def __init__(self, images: Any, labels: Any) -> None:
        if len(images) != len(labels):
            raise UsageError(
                f"there are {len(images)} images but {len(labels)} labels: they must pair up"
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        span = slice(indices.start, indices.stop) if isinstance(indices, range) else list(indices)
        return as_tensors(taken(self.images, span), taken(self.labels, span), "the data")


class Spread(Data):
    """``count`` rows of other data, evenly spread over their order; all, if there are fewer."""

    def __init__(self, data: Data, count: int) -> None:
        count = min(count, len(data))
        self._data = data
        self._indices = [i * len(data) // count for i in range(count)]

    def __len__(self) -> int:
        return len(self._indices)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self._data.rows([self._indices[i] for i in indices])


class Folder(Data):
    """One sub-folder of images per class, classes in alphabetical order.

    Args:
        folder: of the classes.
        shape: (C, H, W) that every image must have; one channel reads them as grey.
        leave_out: files that are passed over, relative to the folder.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], leave_out: Sequence[str] = ()) -> None:
        self.folder, self.shape = folder, shape
        without = {folder / name for name in leave_out}
        classes = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        self.files = [
            (file, label)
            for label, entry in enumerate(classes)
            for file in sorted(p for p in entry.iterdir() if p.is_file() and p.name[0] != ".")
            if file not in without
        ]
        if not self.files:
            raise UsageError(f"{folder} holds no images: make one sub-folder of images per class")

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = [self.files[i] for i in indices]
        try:
            images = [read_image(file, self.shape) for file, _ in chosen]
        except Unreadable as error:
            raise self._all_unreadable() from error
        empty = torch.empty(0, *self.shape)
        return torch.stack(images) if images else empty, torch.tensor([y for _, y in chosen])

    def unreadable(self) -> list[str]:
        """All files that are no image, relative to the folder; reads every file."""
        found = []
        for file, _ in self.files:
            try:
                read_image(file, self.shape)
            except Unreadable:
                found.append(str(file.relative_to(self.folder)))
        return found

    def _all_unreadable(self) -> UsageError:
        names = [str(self.folder / name) for name in self.unreadable()]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return UsageError(
            f"cannot read {', '.join(names[:5])}{more} as an image: remove or repair "
            f"{'it' if len(names) == 1 else 'them'}, or pass over with --skip-bad"
        )


class Items(Data):
    """A map-style data set, such as torchvision's and timm's: ``dataset[i] -> (image, label)``."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.dataset, self.collate = dataset, collate

    def __len__(self) -> int:
        return len(self.dataset)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        if not len(indices):
            return torch.empty(0), torch.empty(0, dtype=torch.long)
        return pair(self.collate([_plain(self.dataset[i]) for i in indices]), self.dataset)


class Stream(Data):
    """Anything that yields batches (images, labels) and can only be read from the front."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self._at = 0
        self._rows: Iterator[tuple[Tensor, Tensor]] = iter(())

    def __len__(self) -> int:
        raise UsageError(
            f"{type(self.loader).__name__} cannot tell how many images it has: score all of them "
            "(no samples), or give a map-style data set"
        )

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        return self.read(indices[0], indices[-1] + 1)

    def read(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        if first < self._at:
            self._at, self._rows = 0, iter(())
        if self._at == 0:
            self._rows = self._each()
        chosen = list(islice(self._rows, first - self._at, last - self._at))
        self._at = first + len(chosen)
        if not chosen:
            return torch.empty(0), torch.empty(0, dtype=torch.long)
        images, labels = zip(*chosen, strict=True)
        return torch.stack(images), torch.stack(labels)

    def _each(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            yield from zip(*pair(batch, self.loader), strict=True)


def of_loader(thing: Any) -> Data:
    """A data set or a ``DataLoader`` that goes through one in order, or any iterable of batches."""
    sampler = getattr(thing, "sampler", None)
    if isinstance(sampler, SequentialSampler):
        return Items(thing.dataset, thing.collate_fn if thing.batch_size else default_collate)
    if hasattr(thing, "__getitem__") and hasattr(thing, "__len__"):
        return Items(thing)
    return Stream(thing)


class Unreadable(UsageError):
    """A file that is no image."""


def read_image(file: Path, shape: tuple[int, ...]) -> Tensor:
    """One image, float in [0, 1].

    Raises:
        Unreadable: for a file that is no image.
        UsageError: for one of another shape or depth.
    """
    try:
        with Image.open(file) as picture:
            if picture.mode.startswith("I"):
                raise UsageError(f"{file} has 16 bits a pixel: convert it to 8 bits")
            image = _of_picture(picture, grey=shape[0] == 1)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise Unreadable(f"cannot read {file} as an image: remove or repair it") from error
    if tuple(image.shape) != tuple(shape):
        raise UsageError(
            f"{file} has shape {tuple(image.shape)}, the victim takes {tuple(shape)}: resize the "
            "images, or resize inside the victim and give its input_shape accordingly"
        )
    return image


def pair(found: Any, source: Any) -> tuple[Tensor, Tensor]:
    """Images and labels of what a loader or a factory gave.

    Raises:
        UsageError: if it is no pair of arrays of numbers.
    """
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise UsageError(f"{source} must return images and labels, not {type(found).__name__}")
    return as_tensors(found[0], found[1], str(source))


def as_tensors(images: Any, labels: Any, source: str) -> tuple[Tensor, Tensor]:
    """Arrays of numbers as tensors, integer labels as int64.

    Raises:
        UsageError: if they are no arrays of numbers.
    """
    try:
        images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"images and labels of {source} are no arrays of numbers ({error}): give float images "
            "and integer labels"
        ) from error
    integer = not labels.is_floating_point() and labels.dtype != torch.bool
    return images, labels.long() if integer else labels


def taken(array: Any, rows: slice | list[int]) -> Any:
    """Rows of an array, in memory.

    One on the disk is mapped anew each time: pages once looked at count as memory in use for as
    long as their mapping lasts.
    """
    if not isinstance(array, np.memmap):
        return array[rows]
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    assert array.filename is not None
    return np.array(
        np.memmap(array.filename, array.dtype, "r", array.offset, array.shape, order)[rows]
    )


def _of_picture(picture: Image.Image, *, grey: bool) -> Tensor:
    pixels = np.array(picture.convert("L" if grey else "RGB"), dtype=np.float32)
    return torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1) / 255


def _plain(item: Any) -> Any:
    """An item of a data set without transforms has a picture in place of a tensor."""
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Image.Image):
        return _of_picture(item[0], grey=item[0].mode in ("1", "L")), item[1]
    return item
