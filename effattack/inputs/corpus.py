"""Corpora: the worst inputs that were found on one victim inside one budget, as a file.

An ``.npz`` without pickles. Inputs stand in it as their domain packs them, an attacked one by its
difference from the clean one, byte by byte, where both are of one length: that compresses well.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from effattack.errors import UsageError
from effattack.inputs.changes import changed, changes
from effattack.inputs.npz import array_in
from effattack.streams import on_one_line

FORMAT = 1
"""Of the file; raised when an older effattack would misread it."""
ARRAYS = ("clean", "clean_ends", "change", "change_ends", "labels", "clean_work", "work")
_AGAIN = "effattack run --out DIR writes corpora to DIR/corpus"


@dataclass(frozen=True)
class About:
    """What a corpus says of the victim that its inputs were found on, and of the run."""

    victim: str
    digest: str
    """Of the victim."""
    threat: str
    """What was allowed to change, as text."""
    domain: Mapping[str, Any]
    """As :meth:`effattack.domains.Domain.describe` has it."""
    classes: int
    """How many there are; 0 where answers are no classes."""
    currency: str
    """The count that ``clean_work`` and ``work`` are of."""
    scored: int
    """Inputs of the run, also those that are left out here."""
    made: str
    """When, and by which effattack."""


@dataclass(frozen=True)
class Corpus:
    """Some inputs, clean and as they were attacked, with what they cost the recorded victim.

    Attributes:
        about: of the victim and the run.
        clean, attacked: packed inputs.
        labels: (inputs, ...) of the victim's task.
        clean_work, work: (inputs,) float64, as counted when they were recorded.
        found_by: the attack that found each.
        name: where it was read from, for messages.
    """

    about: About
    clean: list[bytes]
    attacked: list[bytes]
    labels: NDArray[Any]
    clean_work: NDArray[np.float64]
    work: NDArray[np.float64]
    found_by: list[str]
    name: str = ""

    def __len__(self) -> int:
        return len(self.clean)

    @property
    def keys(self) -> list[str]:
        """What the clean inputs are told apart by: their fingerprints."""
        return [hashlib.sha256(row).hexdigest()[:16] for row in self.clean]

    def take(self, rows: Sequence[int]) -> Corpus:
        """Some of its inputs, in this order."""
        return replace(
            self,
            clean=[self.clean[row] for row in rows],
            attacked=[self.attacked[row] for row in rows],
            labels=self.labels[list(rows)],
            clean_work=self.clean_work[list(rows)],
            work=self.work[list(rows)],
            found_by=[self.found_by[row] for row in rows],
        )

    def joined(self, other: Corpus) -> Corpus:
        """This one and the inputs of another; of equal clean inputs, that which cost more."""
        best: dict[str, tuple[float, int, int]] = {}
        for which, corpus in enumerate((self, other)):
            for row, key in enumerate(corpus.keys):
                if key not in best or corpus.work[row] > best[key][0]:
                    best[key] = float(corpus.work[row]), which, row
        one, two = (
            corpus.take([row for _, found, row in best.values() if found == which])
            for which, corpus in enumerate((self, other))
        )
        more = len(best) - len({*self.keys})
        return Corpus(
            replace(self.about, scored=self.about.scored + more),
            one.clean + two.clean,
            one.attacked + two.attacked,
            np.concatenate([one.labels, two.labels]),
            np.concatenate([one.clean_work, two.clean_work]),
            np.concatenate([one.work, two.work]),
            one.found_by + two.found_by,
        )

    def dearest(self, count: int) -> Corpus:
        """The ``count`` inputs that take back most, in the order that they have here."""
        gain = np.nan_to_num(self.work - self.clean_work)
        return self.take(sorted(np.argsort(-gain, kind="stable")[:count].tolist()))


def packed(corpus: Corpus) -> bytes:
    """The file of a corpus."""
    arrays: dict[str, Any] = {
        **_joined("clean", corpus.clean),
        **_joined("change", changes(corpus.attacked, corpus.clean)),
        "labels": corpus.labels,
        "clean_work": corpus.clean_work,
        "work": corpus.work,
    }
    about = {"format": FORMAT, **asdict(corpus.about), "found_by": corpus.found_by}
    about["sha256"] = _digest(arrays, about)
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with io.BytesIO() as file:
        np.savez_compressed(file, about=text, **arrays)
        return file.getvalue()


def read_corpus(path: Path) -> Corpus:
    """The corpus of a file.

    Raises:
        UsageError: for a file that is none, is damaged or altered, holds Python objects, lacks the
            clean inputs, or was written by a newer effattack.
    """
    shown = on_one_line(path)
    try:
        if not path.is_file():  # opening a pipe would wait for a writer
            raise ValueError("it is no file")
        with ZipFile(path) as archive:
            return _read(path, archive)
    except UsageError:
        raise
    except Exception as error:  # decoders of broken files raise anything
        reason = "it is no .npz" if isinstance(error, BadZipFile) else str(error).partition("\n")[0]
        raise UsageError(
            f"cannot read the corpus {shown} ({on_one_line(reason or type(error).__name__)}): "
            f"{_AGAIN}"
        ) from error


def read_corpora(path: Path) -> list[Corpus]:
    """The corpora of a folder, or the one of a file.

    Raises:
        UsageError: where there is none, or one cannot be read.
    """
    if not path.is_dir():
        return [read_corpus(path)]
    if not (files := sorted(path.glob("*.npz"))):
        raise UsageError(f"{on_one_line(path)} holds no corpus (.npz): {_AGAIN}")
    return [read_corpus(file) for file in files]


def file_name(victim: str, threat: str) -> str:
    """What the corpus of a victim and a threat is called in a folder: unlike that of any other."""
    told = f"{victim} {threat}"
    plain = re.sub(r"[^\w.]+", "-", told).strip("-.")[:80]
    if re.fullmatch(r"[\w.-]+", victim) and len(told) <= 80:
        return f"{plain}.npz"
    return f"{plain}-{hashlib.sha256(told.encode()).hexdigest()[:6]}.npz"


def _read(path: Path, archive: ZipFile) -> Corpus:
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    if "about" not in names:
        raise ValueError("it is no corpus: it does not say what it is about")
    about = json.loads(array_in(path, archive, "about").tobytes())
    if (found := about["format"]) > FORMAT:
        raise UsageError(
            f"{on_one_line(path)} was written by a newer effattack (format {found}, this one "
            f"knows {FORMAT}): update effattack, or record it again"
        )
    if missing := [name for name in ARRAYS if name not in names]:
        lacks = "the clean inputs" if "clean" in missing else ", ".join(missing)
        raise ValueError(f"it lacks {lacks}")
    arrays = {name: array_in(path, archive, name) for name in ARRAYS}
    if about.pop("sha256", "") != _digest(arrays, about):
        raise ValueError("its contents are not those that were written: it is damaged or altered")
    clean = _parted(arrays["clean"], arrays["clean_ends"])
    stored = _parted(arrays["change"], arrays["change_ends"])
    beside = arrays["labels"], arrays["clean_work"], arrays["work"], about["found_by"]
    if not clean or {len(clean)} != {len(each) for each in (stored, *beside)}:
        raise ValueError("its arrays do not pair up")
    told = About(**{key: about[key] for key in About.__dataclass_fields__})
    return Corpus(told, clean, changed(stored, clean), *beside, on_one_line(path))


def _digest(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()


def _joined(name: str, rows: Iterable[bytes]) -> dict[str, NDArray[Any]]:
    """Rows of any length behind each other, and where each ends."""
    rows = list(rows)
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return {name: np.frombuffer(b"".join(rows), np.uint8), f"{name}_ends": ends}


def _parted(joined: NDArray[np.uint8], ends: NDArray[np.int64]) -> list[bytes]:
    """The inverse of :func:`_joined`."""
    return [part.tobytes() for part in np.split(joined, ends[:-1])]
