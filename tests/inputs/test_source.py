"""Images and labels from folders, .npz files and factories; and what is refused."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import LinearSaver, grey_images

from effattack.domains import Pixels
from effattack.errors import UsageError
from effattack.inputs.source import load_data, subset
from effattack.tasks import Classes

VICTIM = LinearSaver()
IMAGES, LABELS = grey_images(6), torch.tensor([0, 0, 0, 1, 1, 1])


def folder_of(tmp_path: Path, size: tuple[int, int] = (4, 4)) -> Path:
    for index, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        levels = (image[0] * 255).round().byte().numpy()
        file = tmp_path / "images" / "ab"[label] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).resize(size, Image.Resampling.NEAREST).save(file)
    return tmp_path / "images"


def npz_of(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path / "data.npz"


def test_a_folder_by_class(tmp_path: Path) -> None:
    images, labels = load_data(str(folder_of(tmp_path)), VICTIM)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_an_npz(tmp_path: Path) -> None:
    file = npz_of(tmp_path, images=IMAGES.numpy(), labels=LABELS.numpy())
    images, labels = load_data(str(file), VICTIM)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_a_factory_and_the_victims_own() -> None:
    assert len(load_data("effattack.models_zoo.digits:scored_images", _rgb())[0]) == 300
    assert len(load_data(None, _rgb())[0]) == 300


def _rgb() -> LinearSaver:
    victim = LinearSaver()
    victim.domain, victim.task = Pixels((3, 32, 32)), Classes(10)
    victim.data = "effattack.models_zoo.digits:scored_images"
    return victim


def test_a_folder_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"0.png has shape \(1, 5, 5\), the victim takes"):
        load_data(str(folder_of(tmp_path, size=(5, 5))), VICTIM)


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "a" / "notes.png").write_text("not an image")
    with pytest.raises(UsageError, match=r"cannot read .*notes.png as an image"):
        load_data(str(folder), VICTIM)


def test_what_is_passed_over_is_said(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / ".git").mkdir()
    with pytest.warns(UserWarning, match="toy: 1 hidden or foreign folder was passed over: .git"):
        images, labels = load_data(str(folder), VICTIM)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        load_data(str(tmp_path), VICTIM)


def test_nothing_at_that_path() -> None:
    with pytest.raises(UsageError, match=r"no such folder, \.npz"):
        load_data("nowhere", VICTIM)


@pytest.mark.parametrize(
    "name", ["pipe", "pipe.npz", "pipe.ts", "pipe.csv", "pipe.wav", "name" * 99]
)
def test_what_is_no_file_is_never_opened(name: str, tmp_path: Path) -> None:
    if len(name) < 99:
        os.mkfifo(tmp_path / name)
    with pytest.raises(
        UsageError,
        match=r"no such folder, \.npz, \.csv, \.ts, \.jsonl or|it is no file|holds sound",
    ):
        load_data(str(tmp_path / name), VICTIM)


def test_a_victim_without_data_of_its_own() -> None:
    with pytest.raises(UsageError, match="brings no data of its own"):
        load_data(None, VICTIM)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES.numpy()}, "labels"),
        ({"images": (IMAGES * 255).byte().numpy(), "labels": LABELS.numpy()}, "divide 8-bit"),
        ({"images": IMAGES.numpy(), "labels": LABELS.numpy()[:2]}, "must pair up"),
        ({"images": np.array([{}], dtype=object), "labels": LABELS.numpy()}, "cannot read"),
        ({"images": np.array({"a": 1}), "labels": LABELS.numpy()}, "objects|allow_pickle"),
        ({"images": np.float32(0.5), "labels": np.int64(0)}, r"images have the shape \(\)"),
        ({"images": IMAGES.numpy(), "labels": np.int64(0)}, r"labels have the shape \(\)"),
        ({"images": IMAGES.numpy(), "labels": LABELS.numpy().astype(str)}, "no arrays of numbers"),
        ({"images": IMAGES.numpy(), "labels": LABELS.numpy() * 0.5}, "integer class indices"),
        ({"images": IMAGES.numpy(), "labels": LABELS.numpy() * 1j}, "integer class indices"),
        ({"images": IMAGES.numpy(), "labels": LABELS.numpy() * 9}, "classes 0 to 1"),
        ({"images": IMAGES.numpy() * np.nan, "labels": LABELS.numpy()}, "NaN or infinity"),
        ({"images": IMAGES.numpy() * 1j, "labels": LABELS.numpy()}, "not float"),
        ({"images": np.zeros(6, [("a", "f4")]), "labels": LABELS.numpy()}, "no arrays of numbers"),
        ({"images": np.zeros((0, 1, 4, 4)), "labels": LABELS.numpy()[:0]}, "batch is empty"),
    ],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_that_does_not_fit(
    arrays: dict[str, Any], message: str, save: Callable[..., None], tmp_path: Path
) -> None:
    save(tmp_path / "data.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        load_data(str(tmp_path / "data.npz"), VICTIM)


def npy(shape: tuple[int, ...], content: bytes = b"", version: int = 1) -> bytes:
    """An array as .npy, whose header says what it likes."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(head)) + head.encode() + content
    )


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (npy((-1, 1, 4, 4), bytes(64)), r"images have the shape \(-1, 1, 4, 4\)"),
        (npy((6, 1, 4, 4), bytes(64)), "take 384 bytes, the file holds 64"),
        (npy((1, 1, 4, 4), bytes(384)), "take 64 bytes, the file holds 384"),
        (npy((10**12, 1, 4, 4), bytes(64)), "take 64000000000000 bytes, the file holds 64"),
        (npy((10**30, 1, 4, 4), bytes(64)), "the file holds 64"),
        (npy((1, 1, 4, 4), bytes(64), version=3), "header of version"),
        (npy((1, 1, 4, 4))[:20], "cannot read"),
        (b"", "cannot read"),
        (b"no array at all", "cannot read"),
    ],
)
@pytest.mark.parametrize("form", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_npz_that_lies(member: bytes, message: str, form: int, tmp_path: Path) -> None:
    labels = io.BytesIO()
    np.save(labels, LABELS.numpy()[:1])
    with zipfile.ZipFile(tmp_path / "data.npz", "w", form) as archive:
        archive.writestr("images.npy", member)
        archive.writestr("labels.npy", labels.getvalue())
    with pytest.raises(UsageError, match=message):
        load_data(str(tmp_path / "data.npz"), VICTIM)


def test_an_npz_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "data.npz", images=IMAGES.numpy(), labels=LABELS.numpy())
    monkeypatch.setattr(os, "sysconf", lambda _: 16)
    with pytest.raises(UsageError, match=r"images take 384 bytes, this machine has 256: np.savez"):
        load_data(str(tmp_path / "data.npz"), VICTIM)


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06", b"no zip"])
def test_a_file_that_is_no_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"cannot read .*data.npz \(.*must be an .npz"):
        load_data(str(tmp_path / "data.npz"), VICTIM)


def test_arrays_of_another_byte_order(tmp_path: Path) -> None:
    file = npz_of(
        tmp_path, images=IMAGES.numpy().astype(">f4"), labels=LABELS.numpy().astype(">i2")
    )
    images, labels = load_data(str(file), VICTIM)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_a_subset_is_spread_over_the_classes() -> None:
    images, labels = subset(IMAGES, LABELS, 2)
    assert labels.tolist() == [0, 1]
    assert torch.equal(images, IMAGES[[0, 3]])
    assert len(subset(IMAGES, LABELS, 99)[0]) == 6
    with pytest.raises(UsageError, match="at least one input"):
        subset(IMAGES, LABELS, 0)
