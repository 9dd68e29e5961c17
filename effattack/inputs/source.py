"""Inputs and labels from a path or a factory, in the form that their domain checks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effattack.domains import Batch, Domain
from effattack.domains.parts import PartsBatch
from effattack.errors import UsageError
from effattack.inputs.arrays import as_tensors
from effattack.inputs.generated import Generated, mark_of
from effattack.inputs.npz import open_npz
from effattack.inputs.readers import Arrays, Data, Folder, InMemory, Spread, of_loader
from effattack.inputs.series_files import SERIES_FILES
from effattack.inputs.text_files import SUFFIX, read_jsonl
from effattack.inputs.wav_files import SUFFIX as SOUND
from effattack.inputs.wav_files import read_recording
from effattack.registry import call, import_factory
from effattack.victim import Victim


@dataclass(frozen=True)
class Source:
    """Names data, so that any process can open them.

    Attributes:
        name: a folder with one sub-folder of images per class (in the order of
            :func:`.folders.listing`), an ``.npz`` file with ``labels`` and ``images``, ``series``
            or ``inputs``, series in a ``.csv`` or ``.ts`` file (:mod:`.series_files`), text in a
            ``.jsonl`` file (:mod:`.text_files`), a recording in a ``.wav`` file
            (:mod:`.wav_files`), or ``module:factory`` of a callable that returns both, a data set,
            or a loader that does not shuffle.
        shape: of one input: (C, H, W) of an image.
        nouns: what the victim calls its inputs: folders hold images alone.
        samples: how many, evenly spread over their order; None: all.
        leave_out: unreadable files of a folder, to be passed over.
    """

    name: str
    shape: tuple[int | None, ...]
    samples: int | None = None
    leave_out: tuple[str, ...] = ()
    nouns: str = "images"

    def open(self, domain: Domain | None = None) -> Data:
        """The data; nothing but a factory's own work is done yet.

        Args:
            domain: of the victim, by which text is read.

        Raises:
            UsageError: naming the cause and the remedy.
        """
        if self.samples is not None and self.samples < 1:
            raise UsageError(f"--samples {self.samples}: score at least one input")
        data = self._open(domain)
        if mark := mark_of(self.name):
            data = Generated(data, mark)
        return data if self.samples is None else Spread(data, self.samples)

    def _open(self, domain: Domain | None) -> Data:
        path = Path(self.name)
        if os.path.isdir(path):
            return self._folder(path)
        if path.suffix == ".npz":
            return Arrays(*open_npz(path))
        if path.suffix in SERIES_FILES:
            return Arrays(*SERIES_FILES[path.suffix](path))
        if path.suffix == SUFFIX:
            return Arrays(*read_jsonl(path, domain))
        if path.suffix.lower() == SOUND:
            return Arrays(*read_recording(path, domain))
        if ":" not in self.name:
            raise UsageError(
                f"data {self.name!r}: no such folder, .npz, .csv, .ts, .jsonl or .wav file; a "
                "callable is named module:factory"
            )
        found = call(import_factory(self.name), self.name)
        if isinstance(found, tuple | list) and len(found) == 2:
            if isinstance(found[0], PartsBatch):
                return InMemory(*found)
            return Arrays(*as_tensors(found[0], found[1], self.name))
        readable = hasattr(found, "__iter__") or hasattr(found, "__getitem__")
        if not readable or isinstance(found, Mapping | str | bytes | Tensor | np.ndarray):
            raise UsageError(
                f"{self.name} must return {self.nouns} and labels, a data set or a loader, not "
                f"{type(found).__name__}"
            )
        return of_loader(found)

    def without_bad(self) -> Source:
        """The same, the unreadable images of a folder left out; reads every file of it."""
        if not os.path.isdir(self.name):
            return self
        return replace(self, leave_out=tuple(self._folder(Path(self.name)).unreadable()))

    def _folder(self, path: Path) -> Folder:
        if self.nouns != "images":
            raise UsageError(
                f"{self.name} is a folder, which is read as images, and the victim takes "
                f"{self.nouns}: give an .npz with inputs and labels, or module:factory"
            )
        return Folder(path, self.shape, self.leave_out)


def source_of(name: str | None, victim: Victim, samples: int | None = None) -> Source:
    """The data of that name, for a victim; its own where no name is given.

    Raises:
        UsageError: if neither is there.
    """
    name = name or victim.data
    if name is None:
        raise UsageError(
            f"{victim.name} brings no data of its own: give --data "
            f"{'an image folder by class, ' * (victim.domain.kind == 'pixels')}an .npz with "
            f"{'images' if victim.domain.kind == 'pixels' else 'inputs'} and labels, "
            f"{'a .jsonl of sentences, ' * (victim.domain.kind == 'tokens')}or module:factory"
        )
    if os.path.exists(name):  # other processes may run in other folders
        name = str(Path(name).absolute())
    return Source(name, tuple(victim.input_shape), samples, nouns=victim.domain.nouns)


def slices(data: Data, size: int) -> Iterator[tuple[int, Batch, Tensor]]:
    """Index of the first input, inputs and labels of each slice."""
    first = 0
    while True:
        inputs, labels = data.read(first, first + size)
        if first and not len(inputs):
            return
        yield first, inputs, labels
        first += len(inputs)
        if len(inputs) < size:
            return


def load_data(source: str | None, victim: Victim) -> tuple[Batch, Tensor]:
    """All inputs (B, ...) and labels (B, ...) of a :class:`Source`, for a victim.

    Args:
        source: see :class:`Source`. None: the victim's own data.
        victim: whose domain and task the data must fit.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    data = source_of(source, victim).open(victim.domain)
    for remark in data.remarks(victim.num_classes):
        warnings.warn(f"{victim.name}: {remark}", stacklevel=2)
    return checked(data, victim)


def checked(data: Data, victim: Victim) -> tuple[Batch, Tensor]:
    """All inputs and labels of these data, if they fit the victim.

    Raises:
        UsageError: naming the cause and the remedy.
    """
    inputs, labels = data.whole()
    victim.domain.check(inputs)
    victim.task.check(labels, len(inputs))
    return inputs, labels


def subset(inputs: Batch, labels: Tensor, count: int) -> tuple[Batch, Tensor]:
    """``count`` of the inputs, evenly spread over their order; all of them if there are fewer.

    Raises:
        UsageError: for a count below 1.
    """
    if count < 1:
        raise UsageError(f"--samples {count}: score at least one input")
    if count >= len(inputs):
        return inputs, labels
    rows = torch.arange(count) * len(inputs) // count
    return inputs[rows], labels[rows]


def held_out(
    domain: Domain, inputs: Batch, labels: Tensor, count: int
) -> tuple[Batch, Tensor] | None:
    """What universal attacks learn from when no data is given for it: inputs not in ``subset``.

    As many as are scored, evenly spread over the rest; none equal to a scored one. None where
    nothing is left.
    """
    if count >= len(inputs):
        return None
    scored = torch.zeros(len(inputs), dtype=torch.bool)
    scored[torch.arange(count) * len(inputs) // count] = True
    seen = set(domain.fingerprints(inputs[scored]))
    others = (~scored).nonzero()[:, 0]
    new = [key not in seen for key in domain.fingerprints(inputs[others])]
    rest = others[torch.tensor(new)]
    return subset(inputs[rest], labels[rest], count) if len(rest) else None
