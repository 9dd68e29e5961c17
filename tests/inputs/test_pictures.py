"""Image files of every kind: read as they are, refused by name, or passed over when asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from effattack.errors import UsageError
from effattack.inputs.pictures import Unreadable, read_image
from effattack.inputs.source import Source

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RGB = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=-1)


def written(file: Path, array: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(array)
    (picture if mode is None else picture.convert(mode)).save(file, **options)
    return file


@pytest.mark.parametrize(
    ("name", "array", "mode"),
    [
        ("a.png", RAMP, "L"),
        ("a.png", RAMP, "P"),
        ("a.png", RAMP, "LA"),
        ("a.png", (RAMP > 99).astype(np.uint8) * 255, "1"),
        ("a.tif", RAMP, "L"),
        ("a.tif", RAMP, "PA"),
        ("a.png", RGB, "RGB"),
        ("a.png", RGB, "RGBA"),
        ("a.tif", RGB, "RGBX"),
        ("a.tif", RGB, "CMYK"),
        ("a.bmp", RGB, "RGB"),
        ("a.gif", RAMP, "L"),
    ],
)
def test_8_bits_are_read_as_they_are(
    name: str, array: np.ndarray, mode: str, tmp_path: Path
) -> None:
    grey = array.ndim == 2
    file = written(tmp_path / name, array, mode)
    found = read_image(file, (1 if grey else 3, 8, 8))
    right = torch.from_numpy(array.reshape(8, 8, -1)).permute(2, 0, 1) / 255
    assert torch.equal(found, right)
    if grey:
        assert torch.equal(read_image(file, (3, 8, 8)), right.expand(3, -1, -1))


def test_luma_and_chroma_are_converted(tmp_path: Path) -> None:
    found = read_image(written(tmp_path / "a.tif", RGB, "YCbCr"), (3, 8, 8))
    assert (found.permute(1, 2, 0) * 255 - torch.from_numpy(RGB)).abs().max() < 3.5, "rounded twice"


@pytest.mark.parametrize("values", [np.linspace(0, 1, 64), np.linspace(0.2, 0.4, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_from_0_to_1_are_taken_as_they_are(
    values: np.ndarray, channels: int, tmp_path: Path
) -> None:
    array = values.astype(np.float32).reshape(8, 8)
    found = read_image(written(tmp_path / "a.tif", array), (channels, 8, 8))
    assert torch.equal(found, torch.from_numpy(array).expand(channels, -1, -1))


def frames(file: Path, **options: Any) -> Path:
    first, second = Image.fromarray(RAMP), Image.fromarray(RAMP.T)
    first.save(file, save_all=True, append_images=[second], **options)
    return file


def transparent(file: Path, mode: str) -> Path:
    picture = Image.fromarray(RGB).convert(mode)
    picture.putalpha(Image.fromarray(RAMP))
    picture.save(file)
    return file


def levels_of(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(8, 8)


def truncated(file: Path) -> Path:
    whole = written(file, np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).read_bytes()
    file.write_bytes(whole[:70])
    return file


def pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


def folder(file: Path) -> Path:
    file.mkdir()
    return file


def link(file: Path) -> Path:
    file.symlink_to("nowhere")
    return file


def with_bytes(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


REFUSED = {
    "8-bit floats": (lambda p: written(p / "x.tif", levels_of(RAMP)), r"from 0 to 252, not from 0"),
    "signed floats": (
        lambda p: written(p / "x.tif", levels_of(np.linspace(-1, 1, 64))),
        "floats from -1 to 1",
    ),
    "NaN": (lambda p: written(p / "x.tif", levels_of(RAMP * np.nan)), "from nan to nan"),
    "16 bits": (lambda p: written(p / "x.png", RAMP.astype(np.uint16) * 256), "16 bits a pixel"),
    "32 bits": (lambda p: written(p / "x.tif", RAMP.astype(np.int32)), "mode I"),
    "Lab": (lambda p: written(p / "x.tif", RGB, "LAB"), "mode LAB"),
    "animated GIF": (lambda p: frames(p / "x.gif"), "2 frames"),
    "animated PNG": (lambda p: frames(p / "x.png"), "2 frames"),
    "pages": (lambda p: frames(p / "x.tif"), "2 frames"),
    "transparent": (lambda p: transparent(p / "x.png", "RGB"), "transparent pixels"),
    "transparent grey": (lambda p: transparent(p / "x.png", "L"), "transparent pixels"),
    "transparent level": (
        lambda p: written(p / "x.png", RAMP, "P", transparency=4),
        "transparent pixels",
    ),
    "nothing": (lambda p: with_bytes(p / "x.png", b""), "no image format"),
    "text": (lambda p: with_bytes(p / "x.jpg", b"no image"), "no image format"),
    "a header only": (lambda p: with_bytes(p / "x.png", b"\x89PNG\r\n\x1a\n\0\0"), "no image f"),
    "truncated": (lambda p: truncated(p / "x.png"), "truncated"),
    "a pipe": (lambda p: pipe(p / "x.png"), "no file"),
    "a folder": (lambda p: folder(p / "x.png"), "no file"),
    "a broken link": (lambda p: link(p / "x.png"), "a broken link"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name_and_passed_over(kind: str, tmp_path: Path) -> None:
    put, why = REFUSED[kind]
    (tmp_path / "class").mkdir()
    file = put(tmp_path / "class")
    with pytest.raises(Unreadable, match=rf"cannot read .*{file.name} as an image: .*{why}"):
        read_image(file, (1, 8, 8))
    written(tmp_path / "class" / "a.png", RAMP)
    images, _ = Source(str(tmp_path), (1, 8, 8)).without_bad().open().whole()
    assert torch.equal(images[0, 0], torch.from_numpy(RAMP) / 255)
    assert len(images) == 1


def test_an_image_of_another_shape_is_never_passed_over(tmp_path: Path) -> None:
    (tmp_path / "class").mkdir()
    written(tmp_path / "class" / "x.png", RAMP[:4])
    with pytest.raises(UsageError, match=r"x.png has shape \(1, 4, 8\), the victim takes"):
        Source(str(tmp_path), (1, 8, 8)).without_bad()


@pytest.mark.parametrize("most", [40, 20], ids=["warned of", "refused"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_huge_image_is_named_and_passed_over(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "class").mkdir()
    written(tmp_path / "class" / "a.png", RAMP[:4])
    written(tmp_path / "class" / "huge.png", RAMP)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    source = Source(str(tmp_path), (1, 4, 8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 if most == 20 else most)
    with pytest.raises(UsageError, match=r"huge.png as an image: .*pixels.*--skip-bad"):
        source.open().whole()
    assert len(source.without_bad().open().whole()[0]) == 1


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_whatever_a_decoder_raises(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", raises)
    with pytest.raises(Unreadable, match=r"a.png as an image: (permission denied|MemoryError)"):
        read_image(written(tmp_path / "a.png", RAMP), (1, 8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")
def test_bytes_flipped_at_random_are_read_or_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("a.png", "a.jpg", "a.gif", "a.tif", "a.bmp"):
        whole = np.frombuffer(written(tmp_path / name, RGB).read_bytes(), np.uint8)
        for _ in range(40):
            broken = whole.copy()
            broken[random.integers(0, len(whole), 8)] = random.integers(0, 256, 8)
            (tmp_path / name).write_bytes(broken[: random.integers(1, len(whole) + 1)].tobytes())
            try:
                image = read_image(tmp_path / name, (3, 8, 8))
            except UsageError:
                continue
            assert 0 <= image.min() <= image.max() <= 1
