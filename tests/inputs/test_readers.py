"""Data read slice by slice: from the disk, from data sets, from loaders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
)
from toys import grey_images

from effattack.errors import UsageError
from effattack.inputs.npz import open_npz
from effattack.inputs.readers import Arrays, Data, Items, Spread, Stream, of_loader
from effattack.inputs.source import Source, slices

IMAGES, LABELS = grey_images(7), torch.arange(7) % 2


class Endless(IterableDataset):
    def __iter__(self):
        return iter(zip(IMAGES, LABELS, strict=True))


def sources() -> dict[str, Data]:
    dataset = TensorDataset(IMAGES, LABELS)
    return {
        "arrays": Arrays(IMAGES, LABELS),
        "data set": of_loader(dataset),
        "loader": of_loader(DataLoader(dataset, batch_size=2)),
        "iterable": of_loader(DataLoader(Endless(), batch_size=2)),
        "spread": Spread(Arrays(IMAGES, LABELS), 99),
    }


@pytest.mark.parametrize("name", sources())
def test_every_source_gives_the_same_slices_in_any_order(name: str) -> None:
    data = sources()[name]
    found = list(slices(data, 3))
    assert [(first, len(images)) for first, images, _ in found] == [(0, 3), (3, 3), (6, 1)]
    assert torch.equal(torch.cat([images for _, images, _ in found]), IMAGES)
    for first, last in ((4, 6), (0, 2), (6, 9)):
        images, labels = data.read(first, last)
        assert torch.equal(images, IMAGES[first:last])
        assert torch.equal(labels, LABELS[first:last])


def test_loaders_in_order_are_read_at_any_place() -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=2)
    assert isinstance(of_loader(loader), Items)
    assert isinstance(of_loader(DataLoader(Endless())), Stream)
    with pytest.raises(UsageError, match="cannot tell how many images"):
        Spread(of_loader(DataLoader(Endless())), 3)


def test_an_npz_stays_on_the_disk(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    np.savez_compressed(tmp_path / "small.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    mapped = open_npz(tmp_path / "plain.npz")[0]
    assert isinstance(mapped, np.memmap)
    for name in ("plain", "small"):
        data = Source(str(tmp_path / f"{name}.npz"), (1, 4, 4)).open()
        assert torch.equal(data.read(2, 5)[0], IMAGES[2:5])
        assert torch.equal(data.read(2, 5)[1], LABELS[2:5])


def test_what_was_read_from_an_npz_is_let_go(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    np.savez(path, images=np.ones((64, 3, 64, 64), np.float32), labels=np.zeros(64, int))
    images, labels = open_npz(path)
    assert in_memory(path) == 0
    Arrays(images, labels).read(0, 64)
    assert in_memory(path) == 0
    assert images.sum() == images.size  # looked at through its own mapping, it stays
    assert in_memory(path) > 2**10


def in_memory(path: Path) -> int:
    """KiB of a mapped file that are in the memory of this process."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            inside = line.endswith(str(path))
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


class Lying:
    """A data set that does not keep its word."""

    def __init__(self, count: object = 7, error: Exception | None = None) -> None:
        self.count, self.error = count, error

    def __len__(self) -> int:
        if isinstance(self.count, Exception):
            raise self.count
        return self.count

    def __getitem__(self, index: int) -> object:
        if index == 4 and self.error is not None:
            raise self.error
        return IMAGES[index], LABELS[index]


class Batches:
    """A loader without a length: batches of three, of as many images as each pass is told."""

    def __init__(self, *counts: int, error: Exception | None = None) -> None:
        self.counts, self.error = list(counts), error

    def __iter__(self):
        count = self.counts.pop(0)
        for first in range(0, count, 3):
            yield IMAGES[first : min(first + 3, count)], LABELS[first : min(first + 3, count)]
        if self.error is not None:
            raise self.error


def a_generator():
    yield IMAGES[:4], LABELS[:4]
    yield IMAGES[4:], LABELS[4:]


SIZES = TensorDataset(IMAGES[:2], LABELS[:2]), TensorDataset(IMAGES[:2, :, :2], LABELS[:2])


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (
            Lying(error=ValueError("corrupt shard")),
            r"Lying\[4\] \(of 7\) raised ValueError: corrup",
        ),
        (Lying(error=KeyError("path")), r"Lying\[4\] \(of 7\) raised KeyError: 'path': correct it"),
        (Lying(9), r"Lying\[7\] \(of 9\) raised IndexError"),
        (Lying(-1), r"len\(\) of Lying raised ValueError"),
        (Lying(2.5), r"len\(\) of Lying raised TypeError"),
        (Lying(RuntimeError("no disk")), r"len\(\) of Lying raised RuntimeError: no disk"),
        (ConcatDataset(SIZES), r"joining ConcatDataset\[0\] to \[2\] into a batch raised Runtime"),
        (DataLoader(Lying(), collate_fn=lambda items: (IMAGES[:1], LABELS[:1])), "made 1 of them"),
        (Batches(7, error=OSError("gone")), r"Batches, after 7 images, raised OSError: gone"),
        (Batches(7, 5), r"Batches gave 7 images once, and fewer the next time"),
        (Batches(7, 0), r"Batches gave 7 images once, and fewer the next time"),
        (a_generator(), r"a generator can be gone through once, .*return a list, a data set"),
        (iter([(IMAGES, LABELS)]), r"a list_iterator can be gone through once"),
        (iter([(IMAGES, LABELS[:3])]), "there are 7 inputs but 3 labels"),
        (iter([(IMAGES[0], LABELS[0])]), "single numbers"),
        (iter([{"images": IMAGES}]), "list_iterator must return images and labels, not dict"),
        (iter([(IMAGES, LABELS), None]), "must return images and labels, not NoneType"),
        (iter([(IMAGES, ["cat"] * 7)]), "no arrays of numbers"),
        (Endless(), "single numbers"),
    ],
)
def test_data_sets_and_loaders_that_break_their_word(thing: object, message: str) -> None:
    data = of_loader(thing)
    with pytest.raises(UsageError, match=message):
        _ = [list(slices(data, 3)) for _ in range(2)]


def test_a_generator_is_enough_for_one_pass() -> None:
    assert torch.equal(of_loader(a_generator()).whole()[0], IMAGES)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_sampler": BatchSampler([6, 0, 3], 2, drop_last=False)},
        {"sampler": [6, 0, 3]},
        {"sampler": SequentialSampler(range(3))},
        {"batch_sampler": [[6, 0], [3]]},
    ],
)
def test_a_loader_is_read_in_its_own_order(options: dict) -> None:
    images, labels = of_loader(DataLoader(TensorDataset(IMAGES, LABELS), **options)).whole()
    rows = [0, 1, 2] if isinstance(options.get("sampler"), SequentialSampler) else [6, 0, 3]
    assert torch.equal(images, IMAGES[rows])
    assert torch.equal(labels, LABELS[rows])


def test_a_loader_may_leave_out_the_last() -> None:
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=3, drop_last=True)
    assert len(of_loader(loader).whole()[0]) == 6


def test_a_loader_with_an_iteration_of_its_own() -> None:
    class Darkened(DataLoader):
        def __iter__(self):
            return ((images / 2, labels) for images, labels in super().__iter__())

    loader = Darkened(TensorDataset(IMAGES, LABELS), batch_size=3)
    assert torch.equal(of_loader(loader).whole()[0], IMAGES / 2)


@pytest.mark.parametrize("mode", ["F", "I;16", "LAB"])
def test_pictures_of_a_data_set_are_not_guessed_at(mode: str) -> None:
    pictures = [(Image.new("L", (4, 4)), 0), (Image.new(mode, (4, 4)), 1)]
    if mode == "F":
        pictures[1][0].putpixel((0, 0), 255.0)
    with pytest.raises(
        UsageError, match=r"cannot read list\[1\] as an image: (floats|16|mode LAB)"
    ):
        of_loader(pictures).whole()


@pytest.mark.parametrize("found", [{"images": IMAGES}, "images", IMAGES, IMAGES.numpy(), 3])
def test_a_factory_of_neither_pair_nor_data_set(
    found: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effattack.inputs.source.call", lambda *_: found)
    with pytest.raises(UsageError, match="must return images and labels, a data set or a loader"):
        Source("effattack.models_zoo.digits:scored_images", (1, 4, 4)).open()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES[0, 0, 0, 0], LABELS[0], "single numbers"),
        (IMAGES.to_sparse(), LABELS, "images are a sparse tensor"),
        (IMAGES, LABELS[:3], "7 inputs but 3 labels"),
        ([IMAGES[0]] * 2, [0, 1], "no arrays of numbers"),
        (IMAGES, [2**70] * 7, "no arrays of numbers"),
    ],
)
def test_a_factory_of_a_pair_that_is_none(
    images: object, labels: object, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effattack.inputs.source.call", lambda *_: (images, labels))
    with pytest.raises(UsageError, match=message):
        Source("effattack.models_zoo.digits:scored_images", (1, 4, 4)).open()


def test_what_is_handed_out_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = IMAGES.numpy().copy(), LABELS.numpy().copy()
    for images, labels in ((IMAGES.clone(), LABELS.clone()), arrays):
        monkeypatch.setattr("effattack.inputs.source.call", lambda *_, pair=(images, labels): pair)
        data = Source("effattack.models_zoo.digits:scored_images", (1, 4, 4)).open()
        for read in (data.whole, lambda data=data: data.rows([0, 3]), lambda d=data: d.read(2, 5)):
            for part in read():
                part.fill_(1)
        assert torch.equal(torch.as_tensor(images), IMAGES)
        assert torch.equal(torch.as_tensor(labels), LABELS)


@pytest.mark.filterwarnings("error")
def test_arrays_that_may_not_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    images = IMAGES.numpy()[::-1].copy()[::-1]
    images.flags.writeable = False
    monkeypatch.setattr("effattack.inputs.source.call", lambda *_: (images, LABELS.numpy()))
    data = Source("effattack.models_zoo.digits:scored_images", (1, 4, 4)).open()
    assert torch.equal(data.whole()[0], IMAGES)


def test_a_factory_of_something_else() -> None:
    with pytest.raises(UsageError, match=r"must return images and labels, a data set or a loader"):
        Source("effattack.measure.environment:usable_cores", (1, 4, 4)).open()
