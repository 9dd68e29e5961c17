"""Files to imitate: read as models of inputs take them, and written back in their own format."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from effattack.domains import Tokens
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.inputs.generated import COMMENT, GENERATED, NOTE
from effattack.inputs.imitation import Numbers, Sample, Words
from effattack.inputs.npz import name_of_inputs, open_npz
from effattack.inputs.readers import Folder
from effattack.inputs.series_files import read_csv, read_ts, ts_classes
from effattack.inputs.text_files import read_jsonl
from effattack.inputs.text_lines import lines_of
from effattack.streams import on_one_line


class Format(NamedTuple):
    """How files of a suffix are read, and what is written after one."""

    read: Callable[[Path], Any]
    """Of a file to imitate."""
    write: Callable[[Path, Path, Any, str], None]
    """The file to imitate, the new one, what it holds, and its mark."""


class Vocabulary:
    """A tokenizer whose tokens are the words of the texts that it has read."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self._ids.setdefault(word, len(self._ids)) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        words = [*self._ids]
        return " ".join(words[index] for index in ids)


def format_of(path: Path) -> Format:
    """That of a file or folder.

    Raises:
        UsageError: for one that is not read by its name, or holds a single input.
    """
    if path.is_dir():
        return Format(_read_folder, _write_folder)
    if path.suffix not in FORMATS:
        raise UsageError(
            f"{on_one_line(path)}: give a folder of images by class, or a {', '.join(FORMATS)} file"
        )
    return FORMATS[path.suffix]


def _read_folder(path: Path) -> Numbers:
    images, labels = Folder(path, (3, None, None)).whole()
    return Numbers(images.numpy(), labels.numpy())


def _write_folder(like: Path, out: Path, made: Numbers, mark: str) -> None:
    names = Folder(like, (3, None, None)).listing.classes
    for name in names:
        (out / name).mkdir(parents=True)
    levels = (made.values * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    for number, (image, label) in enumerate(zip(levels, made.labels, strict=True)):
        Image.fromarray(image).save(out / names[label] / f"{GENERATED}_{number:05}.png")
    (out / NOTE).write_text(mark + "\n", encoding="utf-8")


def _read_npz(path: Path) -> Sample:
    inputs, labels = (np.asarray(array) for array in open_npz(path))
    if inputs.shape[:1] != labels.shape[:1]:
        raise UsageError(
            f"{on_one_line(path)} holds inputs of shape {inputs.shape} and labels of shape "
            f"{labels.shape}: give one label for each input"
        )
    if inputs.dtype.kind in "iu" and inputs.ndim == 2:
        return _words(inputs, labels, path)
    if inputs.dtype.kind != "f" or not np.isfinite(inputs).all():
        raise UsageError(f"{on_one_line(path)} holds {inputs.dtype}: give finite floats, or ids")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UsageError(_no_classes(path))
    return Numbers(inputs, labels.astype(np.int64))


def _write_npz(like: Path, out: Path, made: Sample, mark: str) -> None:
    with ZipFile(like) as archive:
        name = name_of_inputs(archive)
    arrays: dict[str, Any] = {GENERATED: np.array([mark])}
    if isinstance(made, Numbers):
        arrays |= {name: made.values, "labels": made.labels}
    elif isinstance(made, Words):
        words, tags = ([[pair[part] for pair in text] for text in made.texts] for part in (0, 1))
        arrays |= {name: _padded(words), "labels": _padded(tags) if made.tagged else made.labels}
    np.savez(out, **arrays)


def _read_series(read: Callable[[Path], tuple[Tensor, Tensor]]) -> Callable[[Path], Numbers]:
    return lambda path: Numbers(*(part.numpy() for part in read(path)))


def _write_csv(like: Path, out: Path, made: Numbers, mark: str) -> None:
    header = next(text for _, text in lines_of(like) if text[0] != "#")
    first = header.split(",")[0].strip().strip('"').lower() == "label"
    rows = [_listed(series[0]) for series in made.values]
    pairs = zip(rows, made.labels, strict=True)
    lines = [f"{label},{row}" if first else f"{row},{label}" for row, label in pairs]
    _write_lines(out, [COMMENT + mark, header, *lines])


def _write_ts(like: Path, out: Path, made: Numbers, mark: str) -> None:
    classes = ts_classes(lines_of(like))
    before = takewhile(lambda text: text.lower() != "@data", (text for _, text in lines_of(like)))
    header = [text for text in before if text[0] != "#"]
    pairs = zip(made.values, made.labels, strict=True)
    lines = [":".join([*map(_listed, series), classes[label]]) for series, label in pairs]
    _write_lines(out, [COMMENT + mark, *header, "@data", *lines])


def _read_text(path: Path) -> Words:
    ids, labels = read_jsonl(path, Tokens(2**31, 2**31, Vocabulary()))
    if "answer" in json.loads(next(lines_of(path))[1]):
        raise UsageError(_no_classes(path))
    return _words(ids.numpy(), labels.numpy(), path)


def _write_text(like: Path, out: Path, made: Words, mark: str) -> None:
    vocabulary, lines = Vocabulary(), []
    read_jsonl(like, Tokens(2**31, 2**31, vocabulary))
    for number, (text, label) in enumerate(zip(made.texts, made.labels, strict=True)):
        words, tags = zip(*text, strict=True)
        said = {"tags": tags} if made.tagged else {"label": label}
        line = {"text": vocabulary.decode(words), **said, GENERATED: number > 0 or mark}
        lines.append(json.dumps(line, ensure_ascii=False))
    _write_lines(out, lines)


def _words(ids: NDArray[np.integer], labels: NDArray[np.integer], path: Path) -> Words:
    """Rows of ids, with a class (n,) or with tags of their shape; both padded."""
    if labels.ndim != 1 and not np.array_equal(labels == PAD, ids == PAD):
        raise UsageError(_no_classes(path))
    rows = [[int(word) for word in row if word != PAD] for row in ids]
    if labels.ndim == 1:
        return Words([tuple((word, None) for word in row) for row in rows], labels.tolist())
    tagged = zip(rows, labels.tolist(), strict=True)
    return Words([tuple(zip(row, tags, strict=False)) for row, tags in tagged], [0] * len(rows))


def _padded(rows: Sequence[Sequence[int | None]]) -> NDArray[np.int64]:
    width = max(map(len, rows))
    return np.array([[*row, *[PAD] * (width - len(row))] for row in rows], np.int64)


def _no_classes(path: Path) -> str:
    return (
        f"{on_one_line(path)}: its labels are neither classes nor tags, and of an imitated input "
        "nobody knows what else is right: give inputs with a class each"
    )


def _listed(values: Iterable[float]) -> str:
    return ",".join(f"{value:.9g}" for value in values)


def _write_lines(out: Path, lines: Iterable[str]) -> None:
    out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


FORMATS = {
    ".npz": Format(_read_npz, _write_npz),
    ".csv": Format(_read_series(read_csv), _write_csv),
    ".ts": Format(_read_series(read_ts), _write_ts),
    ".jsonl": Format(_read_text, _write_text),
}
"""By suffix; of a folder see :func:`format_of`."""
