"""What a cell is made from: a victim, its attacks and its data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from effattack.attacks.base import Attack
from effattack.cells.spec import CellSpec, data_digest
from effattack.domains.pixels import in_float32, to_grid
from effattack.inputs.readers import Data
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

    first: int
    last: int
    images: Tensor
    labels: Tensor
    digest: str


class Held:
    """A victim, its attacks and its data, in this process."""

    def __init__(self, victim: Victim, attacks: Sequence[Attack], data: Data) -> None:
        self.victim, self.data = victim, data
        self.attacks = {settings(attack): attack for attack in attacks}
        self.digest = victim_digest(victim)
        self._slice: Slice | None = None

    def open(self, spec: CellSpec) -> Held:
        """Itself: there is nothing to make."""
        return self

    def slice(self, first: int, last: int) -> Slice:
        """Part of the data; read once for all cells in a row that need it."""
        if self._slice is None or self._slice[:2] != (first, last):
            images, labels = self.data.read(first, last)
            images = in_float32(images)
            self._slice = Slice(first, last, images, labels, data_digest(images, labels))
        return self._slice

    def images(self, spec: CellSpec) -> tuple[Tensor, Tensor]:
        """Images of a cell's slice on the 8-bit grid, and labels, where the victim is."""
        part = self.slice(spec.first, spec.last)
        images = to_grid(part.images.to(self.victim.device))
        return images, part.labels.to(self.victim.device)


class Maker(Protocol):
    """Held materials, or the names that any process makes them from."""

    def open(self, spec: CellSpec) -> Held: ...


def settings(attack: Attack) -> str:
    """All that defines an attack, readable first."""
    return f"{attack!r} {attack_digest(attack)}"
