"""The mark of generated inputs: a sentence inside their file, told with every score on them.

:class:`.source.Source` finds it and puts it among the remarks, which stand in the terminal, the
report and the JSON of a run, and under pytest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from torch import Tensor

from effattack.domains import Batch
from effattack.inputs.npz import array_in
from effattack.inputs.readers import Data
from effattack.inputs.text_lines import lines_of

GENERATED = "generated"
"""The word that every mark begins with, and the name under which one stands in a file."""
NOTE = f"{GENERATED}.txt"
"""Holds the mark of a folder."""
COMMENT = f"# {GENERATED}: "
"""Begins the first line of a generated file of series."""


class Generated(Data):
    """Data that are generated, and say so with every score.

    Args:
        data: as they are read.
        mark: what their file says of them.
    """

    def __init__(self, data: Data, mark: str) -> None:
        self._data, self.mark = data, mark

    def __len__(self) -> int:
        return len(self._data)

    def rows(self, indices: Sequence[int]) -> tuple[Batch, Tensor]:
        return self._data.rows(indices)

    def remarks(self, num_classes: int) -> list[str]:
        return [f"{GENERATED}: {self.mark}", *self._data.remarks(num_classes)]


def mark_of(name: str) -> str | None:
    """What a file says of its inputs, if they are generated.

    None for others, and for what cannot be read: whoever reads it is told why.
    """
    path = Path(name)
    try:
        if path.is_dir():
            note = path / NOTE
            return note.read_text(encoding="utf-8").strip() if note.is_file() else None
        return _READERS[path.suffix](path) if path.suffix in _READERS else None
    except (OSError, ValueError, BadZipFile):
        return None


def called(name: str) -> str:
    """Data by their name; generated ones are called so."""
    return f"{name} ({GENERATED})" if mark_of(name) else name


def _of_npz(path: Path) -> str | None:
    with ZipFile(path) as archive:
        if f"{GENERATED}.npy" not in archive.namelist():
            return None
        return str(array_in(path, archive, GENERATED)[0])


def _of_series(path: Path) -> str | None:
    _, first = next(lines_of(path), (1, ""))
    return first.removeprefix(COMMENT) if first.startswith(COMMENT) else None


def _of_text(path: Path) -> str | None:
    """Every generated line says so, and the first of them how."""
    for _, line in lines_of(path):
        if GENERATED in line and (told := json.loads(line).get(GENERATED)):
            return str(told)
    return None


_READERS = {".npz": _of_npz, ".csv": _of_series, ".ts": _of_series, ".jsonl": _of_text}
