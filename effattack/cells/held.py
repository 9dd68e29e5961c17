"""What a cell is made from, at hand: a victim, its attacks and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.attacks.base import Attack
from effattack.cells.spec import CellSpec, data_digest
from effattack.domains.pixels import in_float32, to_grid
from effattack.inputs.readers import Data
from effattack.inputs.source import Source
from effattack.victim import Victim
from effattack.victim.digests import attack_digest, victim_digest


@dataclass(frozen=True)
class About:
    """What results tell of a victim."""

    name: str
    family: str
    input_shape: tuple[int, ...]
    num_classes: int
    max_macs: float
    dense_macs: float
    constant: bool

    @classmethod
    def of(cls, victim: Victim) -> About:
        return cls(**{key: getattr(victim, key) for key in cls.__dataclass_fields__})

    @property
    def work(self) -> float:
        """MACs of one image at the most; a guess where they are unknown."""
        return self.max_macs if self.max_macs == self.max_macs else 1e6


class Slice(NamedTuple):
    """Part of the data, as it came, in float32."""

    span: tuple[int, int]
    images: Tensor
    labels: Tensor
    digest: str


class Held:
    """A victim, its attacks and its data, in this process.

    Args:
        victim: on its device.
        attacks: made for it.
        source: of the data, opened with the first cell that needs them.
    """

    def __init__(self, victim: Victim, attacks: Sequence[Attack], source: Source | Data) -> None:
        self.victim, self.source = victim, source
        self.attacks = {attack_digest(attack): attack for attack in attacks}
        self._slice: Slice | None = None

    @cached_property
    def digest(self) -> str:
        """Of the victim."""
        return victim_digest(self.victim)

    @cached_property
    def data(self) -> Data:
        """The data, open."""
        return self.source if isinstance(self.source, Data) else self.source.open()

    @property
    def device(self) -> str:
        """Where cells run."""
        return str(self.victim.device)

    @property
    def threads(self) -> int:
        """Of each cell."""
        return torch.get_num_threads()

    @property
    def size(self) -> int:
        """Bytes of the victim's weights and buffers."""
        return sum(t.nbytes for t in (*self.victim.parameters(), *self.victim.buffers()))

    def open(self, spec: CellSpec) -> Held:
        """Itself: there is nothing to make."""
        return self

    def digest_of(self, spec: CellSpec) -> str:
        """Of a cell's images and labels, as they came."""
        return self._read(spec).digest

    def images(self, spec: CellSpec) -> tuple[Tensor, Tensor]:
        """Images of a cell's slice on the 8-bit grid, and labels, where the victim is."""
        part, device = self._read(spec), self.victim.device
        return to_grid(part.images.to(device)), part.labels.to(device)

    def _read(self, spec: CellSpec) -> Slice:
        """A cell's slice; read once for all cells in a row that need it."""
        span = spec.first, spec.last
        if self._slice is None or self._slice.span != span:
            images, labels = self.data.read(*span)
            images = in_float32(images)
            self._slice = Slice(span, images, labels, data_digest(images, labels))
        return self._slice
