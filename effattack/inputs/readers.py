"""Where inputs come from, one slice at a time: memory stays flat in their number.

A slice is read when a cell needs it, in whichever process runs the cell, and must be the same every
time; nothing here shuffles.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    default_collate,
)

from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.inputs.arrays import as_tensors, check_paired, pair, taken
from effattack.inputs.folders import listing, remarks
from effattack.inputs.pictures import Unreadable, pixels, read_image
from effattack.registry.borders import blaming
from effattack.streams import on_one_line


class Data(ABC):
    """Inputs and labels that can be read in part, in any order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def rows(self, indices: Sequence[int]) -> tuple[Batch, Tensor]:
        """Inputs (B, ...) and labels (B, ...) of these indices, in this order."""

    def read(self, first: int, last: int) -> tuple[Batch, Tensor]:
        """Inputs and labels from ``first`` up to ``last``; fewer, or none, at the end."""
        return self.rows(range(min(first, len(self)), min(last, len(self))))

    def whole(self) -> tuple[Batch, Tensor]:
        """All inputs and labels at once, in memory."""
        return self.read(0, sys.maxsize)

    def remarks(self, num_classes: int) -> list[str]:
        """What is to be said with every score on them of a victim of so many classes."""
        return []


class Arrays(Data):
    """Tensors, or arrays that may lie on the disk; their rows are handed out as copies."""

    def __init__(self, images: Any, labels: Any) -> None:
        check_paired(images, labels)
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        span = slice(indices.start, indices.stop) if isinstance(indices, range) else list(indices)
        return as_tensors(taken(self.images, span), taken(self.labels, span), "the data")


class InMemory(Data):
    """A batch of a victim's domain and its labels, at hand; rows are handed out as copies."""

    def __init__(self, inputs: Batch, labels: Tensor) -> None:
        if len(inputs) != len(labels):
            raise UsageError(
                f"there are {len(inputs)} inputs but {len(labels)} labels: they must pair up"
            )
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, indices: Sequence[int]) -> tuple[Batch, Tensor]:
        span = slice(indices.start, indices.stop) if isinstance(indices, range) else list(indices)
        labels = self.labels[span].detach().clone()
        return self.inputs[span].detach().clone(), labels


class Spread(Data):
    """``count`` rows of other data, evenly spread over their order; all, if there are fewer."""

    def __init__(self, data: Data, count: int) -> None:
        count = min(count, len(data))
        self._data = data
        self._indices = [i * len(data) // count for i in range(count)]

    def __len__(self) -> int:
        return len(self._indices)

    def rows(self, indices: Sequence[int]) -> tuple[Batch, Tensor]:
        return self._data.rows([self._indices[i] for i in indices])

    def remarks(self, num_classes: int) -> list[str]:
        return self._data.remarks(num_classes)


class Folder(Data):
    """One sub-folder of images per class, listed by :func:`effattack.inputs.folders.listing`.

    Args:
        folder: of the classes.
        shape: (C, H, W) that every image must have, None where a size is free; one channel reads
            them as grey.
        leave_out: files that are passed over, relative to the folder.
    """

    def __init__(
        self, folder: Path, shape: tuple[int | None, ...], leave_out: Sequence[str] = ()
    ) -> None:
        self.folder, self.shape, self.left_out = folder, shape, tuple(leave_out)
        self.listing = listing(folder)
        without = {folder / name for name in leave_out}
        self.files = [found for found in self.listing.files if found[0] not in without]
        if not self.files:
            raise UsageError(f"{on_one_line(folder)} holds no images that can be read")

    def __len__(self) -> int:
        return len(self.files)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = [self.files[i] for i in indices]
        try:
            images = [read_image(file, self.shape) for file, _ in chosen]
        except Unreadable as error:
            raise self._all_unreadable() from error
        if len(sizes := {tuple(image.shape) for image in images}) > 1:
            raise UsageError(
                f"{on_one_line(self.folder)} holds images of several shapes, "
                f"{' and '.join(map(str, sorted(sizes)[:2]))}, which no batch can hold: bring them "
                "to one, or keep each size in a folder of its own"
            )
        empty = torch.empty(0, *(size or 0 for size in self.shape))
        return torch.stack(images) if images else empty, torch.tensor([y for _, y in chosen])

    def remarks(self, num_classes: int) -> list[str]:
        return remarks(self.listing, self.left_out, num_classes)

    def unreadable(self) -> dict[str, str]:
        """All files that are no image, relative to the folder, and why; reads every file."""
        found = {}
        for file, _ in self.files:
            try:
                read_image(file, self.shape)
            except Unreadable as error:
                found[str(file.relative_to(self.folder))] = error.args[1]
        return found

    def _all_unreadable(self) -> UsageError:
        found = list(self.unreadable().items())
        names = ", ".join(on_one_line(self.folder / name) for name, _ in found[:5])
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        reasons = list(dict.fromkeys(why for _, why in found[:5]))
        if len(reasons) > 1:
            reasons = [f"{on_one_line(Path(name).name)}: {why}" for name, why in found[:5]]
        return UsageError(
            f"cannot read {names}{more} as an image: {', '.join(reasons)}; remove or repair "
            f"{'it' if len(found) == 1 else 'them'}, or pass over with --skip-bad"
        )


class Items(Data):
    """A map-style data set, such as torchvision's and timm's: ``dataset[i] -> (image, label)``."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.dataset, self.collate = dataset, collate
        self.name = type(dataset).__name__

    def __len__(self) -> int:
        with blaming(f"len() of {self.name}"):
            return len(self.dataset)

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        if not len(indices):
            return torch.empty(0), torch.empty(0, dtype=torch.long)
        items = [self._item(i) for i in indices]
        with blaming(f"joining {self.name}[{indices[0]}] to [{indices[-1]}] into a batch"):
            batch = self.collate(items)
        images, labels = pair(batch, self.name)
        if len(images) != len(indices):
            raise UsageError(
                f"{self.name}: {len(indices)} images were asked for, and its collate_fn made "
                f"{len(images)} of them: let it keep every image"
            )
        return images, labels

    def _item(self, index: int) -> Any:
        """One without transforms has a picture in place of a tensor."""
        with blaming(f"{self.name}[{index}] (of {len(self)})"):
            item = self.dataset[index]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            return item
        if not isinstance(item[0], Image.Image):
            return item
        try:
            return pixels(item[0], grey=item[0].mode in ("1", "L", "LA", "F")), item[1]
        except ValueError as error:
            raise UsageError(f"cannot read {self.name}[{index}] as an image: {error}") from error


class Stream(Data):
    """Anything that yields batches (images, labels) and can only be read from the front."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.name = type(loader).__name__
        self._at = self._most = 0
        self._rows: Iterator[tuple[Tensor, Tensor]] = iter(())

    def __len__(self) -> int:
        raise UsageError(
            f"{self.name} cannot tell how many images it has: score all of them "
            "(no samples), or give a map-style data set"
        )

    def rows(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of ascending indices, each read on from the one before."""
        images, labels = zip(*(self.read(index, index + 1) for index in indices), strict=True)
        return torch.cat(images), torch.cat(labels)

    def read(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        if first < self._at:
            self._again()
        if self._at == 0:
            self._rows = self._each()
        chosen = list(islice(self._rows, first - self._at, last - self._at))
        if first + len(chosen) < min(last, self._most):
            raise UsageError(
                f"{self.name} gave {self._most} images once, and fewer the next time: it must give "
                "the same ones each time"
            )
        self._at = first + len(chosen)
        if not chosen:
            return torch.empty(0), torch.empty(0, dtype=torch.long)
        self._most = max(self._most, self._at)
        images, labels = zip(*chosen, strict=True)
        with blaming(f"joining images {first} to {self._at - 1} of {self.name}"):
            return torch.stack(images), torch.stack(labels)

    def _again(self) -> None:
        if isinstance(self.loader, Iterator):
            raise UsageError(
                f"a {self.name} can be gone through once, and images are read more than once: "
                "return a list, a data set, or an object whose __iter__ starts anew"
            )
        self._at, self._rows = 0, iter(())

    def _each(self) -> Iterator[tuple[Tensor, Tensor]]:
        with blaming(f"iter() of {self.name}"):
            batches = iter(self.loader)
        done, end = 0, object()
        while True:
            with blaming(f"{self.name}, after {done} images,"):
                batch = next(batches, end)
            if batch is end:
                return
            images, labels = pair(batch, self.name)
            yield from zip(images, labels, strict=True)
            done += len(images)


def of_loader(thing: Any) -> Data:
    """A data set or a ``DataLoader`` that goes through one in order, or any iterable of batches."""
    if isinstance(thing, DataLoader) and _in_order(thing):
        return Items(thing.dataset, thing.collate_fn if thing.batch_size else default_collate)
    if isinstance(thing, IterableDataset):
        return Stream(thing)
    if hasattr(thing, "__getitem__") and hasattr(thing, "__len__"):
        return Items(thing)
    return Stream(thing)


def _in_order(loader: DataLoader) -> bool:
    """Whether it gives what its data set holds: each item once, in order, nothing done to it."""
    sampler, batches = loader.sampler, loader.batch_sampler
    ordered = isinstance(sampler, SequentialSampler) and sampler.data_source is loader.dataset
    plain = batches is None or (type(batches) is BatchSampler and batches.sampler is sampler)
    own = type(loader).__iter__ is DataLoader.__iter__
    return ordered and plain and own and not loader.drop_last
