"""CIFAR-10 from a folder: what is read, how it is split, what is refused."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image

from effattack.errors import UsageError
from effattack.models_zoo import cifar10 as module
from effattack.models_zoo.cifar10 import FOLDER, cifar10, scored_images


def write(path: Path, count: int) -> None:
    """``count`` images in two classes; each is one grey, its position."""
    with ZipFile(path, "w") as archive:
        for index in range(count):
            buffer = BytesIO()
            Image.fromarray(np.full((32, 32, 3), index, np.uint8)).save(buffer, "PNG")
            folder = ("cat", "dog")[index % 2]
            archive.writestr(f"{folder}/{index:03}.png", buffer.getvalue())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "train.zip", 12)
    write(tmp_path / "test.zip", 6)
    monkeypatch.setattr(module, "HELD_OUT", 5)
    return tmp_path


def test_the_held_out_images_are_not_trained_on(folder: Path) -> None:
    splits = {split: cifar10(split, folder) for split in ("train", "heldout", "test")}
    greys = {split: set(images[:, 0, 0, 0].tolist()) for split, (images, _) in splits.items()}
    assert len(greys["train"]) == 7
    assert len(greys["heldout"]) == 5
    assert greys["train"] | greys["heldout"] == set(range(12))
    for images, labels in splits.values():
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long() % 2, labels)


def test_scored_images_are_test_images_on_the_grid(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(folder))
    images, labels = scored_images()
    assert images.shape == (6, 3, 32, 32)
    assert torch.equal((images[:, 0, 0, 0] * 255).round().long() % 2, labels)


def test_a_folder_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(UsageError, match=f"set {FOLDER}"):
        cifar10("test")
    with pytest.raises(UsageError, match="download=True"):
        cifar10("test", tmp_path)
    (tmp_path / "test.zip").write_text("no archive")
    with pytest.raises(UsageError, match="cannot read"):
        cifar10("test", tmp_path)
