"""Data read slice by slice: from the disk, from data sets, from loaders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from toys import grey_images

from effattack.data import Source, slices
from effattack.errors import UsageError
from effattack.npz import open_npz
from effattack.sources import Arrays, Data, Items, Spread, Stream, of_loader

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


def test_a_factory_of_something_else() -> None:
    with pytest.raises(UsageError, match=r"must return images and labels, a data set or a loader"):
        Source("effattack.measure.environment:usable_cores", (1, 4, 4)).open()
