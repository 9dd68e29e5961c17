"""Folders of images by class: which label a class has, and that nothing is dropped unsaid."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
from PIL import Image

from effattack.errors import UsageError
from effattack.inputs.folders import listing, remarks
from effattack.inputs.source import Source

SHAPE = (1, 2, 2)


def put(folder: Path, *names: str) -> Path:
    """Images of 2 x 2 pixels, each as bright as its place among the names."""
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", SHAPE[1:], level).save(folder / name)
    return folder


def said(folder: Path, num_classes: int = 2) -> list[str]:
    return Source(str(folder), SHAPE).open().remarks(num_classes)


@pytest.mark.parametrize(
    "name",
    [".git", ".ipynb_checkpoints", "__MACOSX", "__pycache__", "@eaDir", "#recycle", "$Recycle.Bin"],
)
def test_a_foreign_folder_is_no_class(name: str, tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.png", f"{name}/a.png", f"dog/{name}/a.png")
    assert Source(str(tmp_path), SHAPE).open().whole()[1].tolist() == [0, 1]
    folders = f"{name}, dog/{name}"
    assert said(tmp_path) == [f"2 hidden or foreign folders were passed over: {folders}"]


@pytest.mark.parametrize(
    ("names", "order", "remark"),
    [
        ([str(n) for n in range(12)], range(12), None),
        ([f"{n:02}" for n in range(12)], range(12), None),
        (["8", "09", "10", "7"], [3, 0, 1, 2], "have their place as label: 7 is 0, 10 is 3"),
        (["-2", "-1", "0"], [0, 1, 2], "-2 is 0, 0 is 2"),
        (["1", "2", "10", "other"], [0, 2, 1, 3], "alphabetical order: 10 is 1, 2 is 2"),
        ([f"class_{n}" for n in (1, 2, 10)], [0, 2, 1], "class_10 is 1, class_2 is 2"),
        (["n01", "n02", "n10", "a-1", "a1"], [3, 4, 0, 1, 2], None),
    ],
)
def test_the_order_of_classes(
    names: list[str], order: list[int], remark: str | None, tmp_path: Path
) -> None:
    data = Source(str(put(tmp_path, *(f"{name}/a.png" for name in names))), SHAPE).open()
    images, labels = data.whole()
    assert (images[:, 0, 0, 0] * 255).round().int().tolist() == list(order)
    assert labels.tolist() == list(range(len(names)))
    told = data.remarks(len(names))
    assert (not told) if remark is None else (remark in told[0])


def test_one_number_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folders 01 and 1 of .* are the same number"):
        listing(put(tmp_path, "1/a.png", "01/a.png"))


@pytest.mark.parametrize("other", [None, "readme.txt", "train/a.png"])
def test_a_class_without_images_is_not_guessed_at(other: str | None, tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "bird").mkdir()
    if other:
        put(tmp_path / "bird", "train/a.png")
        (tmp_path / "bird" / other).write_text("")
    with pytest.raises(UsageError, match=r"no images in bird of .*shift the labels"):
        listing(tmp_path)


def test_the_folder_above_the_classes(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/a.png", "val/cat/a.png")
    with pytest.raises(UsageError, match=r"holds no images \(2 nested folders .*train/cat with 1"):
        listing(tmp_path)


def test_everything_dropped_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.JPEG", "top.png", "cat/more/b.png", "cat/more/deep/c.png")
    for name in ("cat/.DS_Store", "Thumbs.db", "labels.csv", "cat/notes.txt", "dog/LIST.md"):
        (tmp_path / name).write_text("")
    (tmp_path / "cat" / "folder.png").mkdir()
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(os.path.relpath(tmp_path / "dog" / "socket.png"))
    assert sorted(said(tmp_path)) == [
        "1 top-level image was passed over: top.png",
        "2 hidden or foreign files were passed over: Thumbs.db, cat/.DS_Store",
        "2 nested folders were passed over: cat/folder.png with 0 images, cat/more with 2 images",
        "2 special files were passed over: dog/pipe.png, dog/socket.png",
        "3 other files were passed over: labels.csv, cat/notes.txt, dog/LIST.md",
    ]
    assert len(Source(str(tmp_path), SHAPE).without_bad().open().whole()[0]) == 2


def test_many_names_are_cut(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", *(f"{n}.png" for n in range(9)))
    assert said(tmp_path, 1) == [
        "9 top-level images were passed over: 0.png, 1.png, 2.png, 3.png, 4.png ..."
    ]


def test_fewer_folders_than_classes_are_said(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.png")
    assert said(tmp_path, 10) == [
        "2 class folders for a victim of 10 classes: their labels are 0 to 1"
    ]


def test_broken_links(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "cat" / "b.png").symlink_to("nowhere.png")
    with pytest.raises(UsageError, match=r"b.png as an image: a broken link; .*--skip-bad"):
        Source(str(tmp_path), SHAPE).open().whole()
    data = Source(str(tmp_path), SHAPE).without_bad().open()
    assert data.whole()[1].tolist() == [0, 1]
    assert data.remarks(2) == ["1 unreadable image was passed over: cat/b.png"]
    (tmp_path / "bird").symlink_to("nowhere")
    with pytest.raises(UsageError, match="bird is a broken link: if it was a class"):
        Source(str(tmp_path), SHAPE).open()


def test_links_to_folders_and_files_are_read(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "cat/a.png")
    put(tmp_path / "images", "dog/a.png")
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "images" / "dog" / "b.png").symlink_to(tmp_path / "images" / "dog" / "a.png")
    assert Source(str(tmp_path / "images"), SHAPE).open().whole()[1].tolist() == [0, 1, 1]


def test_a_class_keeps_its_label_when_all_its_images_are_bad(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "cat" / "a.png").write_bytes(b"")
    assert Source(str(tmp_path), SHAPE).without_bad().open().whole()[1].tolist() == [1]
    (tmp_path / "dog" / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match="holds no images that can be read"):
        Source(str(tmp_path), SHAPE).without_bad().open()


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"line\nbreak.png", b"\x1b[31mred.png"])
def test_names_that_no_stream_can_show(name: bytes, tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png")
    (tmp_path / "cat" / os.fsdecode(name)).write_bytes(b"")
    (tmp_path / os.fsdecode(name)).write_bytes(b"")
    source = Source(str(tmp_path), SHAPE)
    with pytest.raises(UsageError, match=r"cannot read .*\.png as an image") as caught:
        source.open().whole()
    told = [str(caught.value), *source.without_bad().open().remarks(1)]
    assert len(told) == 3
    assert all(line.isprintable() and line.encode() for line in told)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)
    with pytest.raises(UsageError, match=r"cannot list .* \(Permission denied\)"):
        listing(tmp_path)


def test_remarks_of_a_spread_are_those_of_the_data(tmp_path: Path) -> None:
    put(tmp_path, "cat/a.png", "top.png")
    data = Source(str(tmp_path), SHAPE, samples=1).open()
    assert data.remarks(1) == remarks(listing(tmp_path), (), 1) != []
    assert torch.equal(data.whole()[0], torch.zeros(1, *SHAPE))
