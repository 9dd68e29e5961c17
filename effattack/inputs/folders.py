"""A folder of images by class: which label a sub-folder has, and what is passed over."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from effattack.errors import UsageError
from effattack.streams import on_one_line

FOREIGN = frozenset(
    {"__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin"}
    | {"recycler", "system volume information", "lost+found"}
    | {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
"""What systems and tools leave beside a user's own files, in lower case; hidden names aside."""


class Listing(NamedTuple):
    """What a folder by class holds."""

    classes: tuple[str, ...]
    """Names of the class folders; the place of one is its label."""
    files: tuple[tuple[Path, int], ...]
    """Images and labels, by class and name; nothing of a file but its name was looked at."""
    passed_over: Mapping[str, Sequence[str]]
    """Kind -> names relative to the folder."""


def listing(folder: Path) -> Listing:
    """One sub-folder of images per class: in numeric order where all names are integers.

    Any other names are in alphabetical order (by code point).

    Raises:
        UsageError: for a folder that cannot be listed, or whose classes cannot be told for sure.
    """
    try:
        return _listing(folder)
    except OSError as error:
        where = on_one_line(error.filename or folder)
        raise UsageError(
            f"cannot list {where} ({error.strerror}): make it readable for this user"
        ) from error


def remarks(found: Listing, unreadable: Sequence[str], num_classes: int) -> list[str]:
    """What is to be said with every score on these images, of a victim of so many classes."""
    passed_over = {**found.passed_over, "unreadable image": unreadable}
    said = [_counted(kind, names) for kind, names in passed_over.items() if names]
    names, last = found.classes, len(found.classes) - 1
    if _numbered(names):
        if [int(name) for name in names] != list(range(len(names))):
            said.append(
                f"numbered class folders have their place as label: {names[0]} is 0, "
                f"{names[-1]} is {last}"
            )
    elif pair := _unlike_numbers(names):
        said.append(
            f"class folders are in alphabetical order: {pair[0]} is {names.index(pair[0])}, "
            f"{pair[1]} is {names.index(pair[1])}"
        )
    if len(names) != num_classes:
        said.append(
            f"{len(names)} class folders for a victim of {num_classes} classes: their labels are "
            f"0 to {last}"
        )
    return [on_one_line(line) for line in said]


def _listing(folder: Path) -> Listing:
    passed_over: dict[str, list[str]] = defaultdict(list)
    classes = {}
    for entry in sorted(folder.iterdir()):
        kind = _kind(entry)
        if _leads_nowhere(entry) and not _foreign(entry):
            raise UsageError(
                f"{on_one_line(entry)} is a broken link: if it was a class, all labels after it "
                "would be others; repair or remove it"
            )
        if kind == "folder":
            classes[entry.name] = entry
        elif kind == "image":
            passed_over["top-level image" if entry.suffix else "other file"].append(entry.name)
        else:
            passed_over[kind].append(entry.name)
    names = _in_order(folder, classes)
    files = [
        [(file, label) for file in _images(classes[name], passed_over)]
        for label, name in enumerate(names)
    ]
    empty = [name for name, own in zip(names, files, strict=True) if not own]
    if len(empty) == len(names):
        told = "; ".join(_counted(kind, found) for kind, found in passed_over.items())
        raise UsageError(
            f"{on_one_line(folder)} holds no images{f' ({on_one_line(told)})' * bool(told)}: make "
            "one sub-folder of images per class"
        )
    if empty:
        raise UsageError(
            f"no images in {on_one_line(_some(empty))} of {on_one_line(folder)}: put some there, "
            "or move away what is no class; it would shift the labels of all classes after it"
        )
    return Listing(tuple(names), tuple(file for own in files for file in own), dict(passed_over))


def _images(folder: Path, passed_over: dict[str, list[str]]) -> list[Path]:
    """The images of one class; adds the others to what is passed over."""
    images = []
    for entry in sorted(folder.iterdir()):
        kind = _kind(entry)
        if kind == "image":
            images.append(entry)
            continue
        name = f"{folder.name}/{entry.name}"
        if kind == "folder":
            inside = sum(_kind(file) == "image" for file in entry.rglob("*"))
            name += f" with {inside} image{'s' * (inside != 1)}"
            kind = "nested folder"
        passed_over[kind].append(name)
    return images


def _kind(entry: Path) -> str:
    """What an entry is, by name and type alone: what a file holds shows when it is read."""
    if _foreign(entry):
        return f"hidden or foreign {'folder' if entry.is_dir() else 'file'}"
    if entry.is_dir():
        return "folder"
    if not entry.is_file() and not _leads_nowhere(entry):
        return "special file"
    return "other file" if entry.suffix and entry.suffix.lower() not in _suffixes() else "image"


def _foreign(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in FOREIGN


def _leads_nowhere(entry: Path) -> bool:
    return entry.is_symlink() and not entry.exists()


@cache
def _suffixes() -> frozenset[str]:
    """Of all formats that Pillow reads."""
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, form in known if form in Image.OPEN)


def _in_order(folder: Path, names: Iterable[str]) -> list[str]:
    names = sorted(names)
    if not _numbered(names):
        return names
    names.sort(key=int)
    for one, other in pairwise(names):
        if int(one) == int(other):
            raise UsageError(
                f"class folders {one} and {other} of {on_one_line(folder)} are the same number: "
                "join or rename them"
            )
    return names


def _numbered(names: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?[0-9]+", name) for name in names)


def _unlike_numbers(names: Sequence[str]) -> tuple[str, str] | None:
    """Two neighbours whose numbers stand the other way round: class_10 before class_2."""

    for pair in pairwise(names):
        parts = zip(*(re.split(r"([0-9]+)", name) for name in pair), strict=False)
        one, other = next((one, other) for one, other in parts if one != other)
        if one.isdigit() and other.isdigit() and int(one) > int(other):
            return pair
    return None


def _counted(kind: str, names: Sequence[str]) -> str:
    were = "s were" if len(names) > 1 else " was"
    return f"{len(names)} {kind}{were} passed over: {_some(names)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + " ..." * (len(names) > 5)
