"""Images and labels from folders, .npz files and factories; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import LinearSaver, grey_images

from effattack.data import load_data, subset
from effattack.errors import UsageError

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
    victim.input_shape, victim.num_classes = (3, 32, 32), 10
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


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no images"):
        load_data(str(tmp_path), VICTIM)


def test_nothing_at_that_path() -> None:
    with pytest.raises(UsageError, match=r"no such folder or .npz"):
        load_data("nowhere", VICTIM)


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
    ],
)
def test_an_npz_that_does_not_fit(
    arrays: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        load_data(str(npz_of(tmp_path, **arrays)), VICTIM)


def test_a_subset_is_spread_over_the_classes() -> None:
    images, labels = subset(IMAGES, LABELS, 2)
    assert labels.tolist() == [0, 1]
    assert torch.equal(images, IMAGES[[0, 3]])
    assert len(subset(IMAGES, LABELS, 99)[0]) == 6
    with pytest.raises(UsageError, match="at least one image"):
        subset(IMAGES, LABELS, 0)
