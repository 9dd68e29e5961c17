"""What a cell is made from, at hand: a victim, its attacks and its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from effattack.attacks.base import Attack
from effattack.cells.spec import CellSpec, data_digest
from effattack.domains import Batch, Domain
from effattack.inputs.readers import Data
from effattack.inputs.source import Source
from effattack.victim import Victim
from effattack.victim.digests import attack_digest, victim_digest


@dataclass(frozen=True)
class About:
    """What results tell of a victim."""

    name: str
    family: str
    input_shape: tuple[int | None, ...]
    num_classes: int
    max_macs: float
    dense_macs: float
    constant: bool
    currency: str
    domain: Mapping[str, Any]
    """What a report must know to show its inputs; plain JSON."""
    answer: Mapping[str, Any]
    """The same of its answers."""
    counts: Mapping[str, Mapping[str, Any]]
    """Name -> unit, and whether it is audited."""
    remote: bool = False
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the victim tells of where it runs."""

    @classmethod
    def of(cls, victim: Victim) -> About:
        return cls(
            victim.name,
            victim.family,
            victim.input_shape,
            victim.num_classes,
            victim.max_macs,
            victim.dense_macs,
            victim.constant,
            victim.currency,
            victim.domain.describe(),
            victim.answer_form,
            {
                name: {"unit": count.unit, "audited": count.audited}
                for name, count in victim.counts.items()
            },
            victim.remote,
            dict(victim.provenance),
        )

    @property
    def work(self) -> float:
        """MACs of one input at the most; a guess where they are unknown."""
        return self.max_macs if self.max_macs == self.max_macs else 1e6


class Slice(NamedTuple):
    """Part of the data, as it came."""

    span: tuple[int, int]
    inputs: Batch
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
        self._answered: tuple[tuple[int, int], Tensor] | None = None

    @cached_property
    def digest(self) -> str:
        """Of the victim."""
        return victim_digest(self.victim)

    @cached_property
    def data(self) -> Data:
        """The data, open."""
        return (
            self.source if isinstance(self.source, Data) else self.source.open(self.victim.domain)
        )

    def opened(self, domain: Domain) -> Data:
        """The data."""
        return self.data

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
        """Of a cell's inputs and labels, as they came."""
        return self._read(spec).digest

    def inputs(self, spec: CellSpec) -> tuple[Batch, Tensor]:
        """Inputs of a cell's slice as a deployed model can be fed, and labels, where the victim
        is."""
        part, domain, device = self._read(spec), self.victim.domain, self.victim.device
        return domain.snap(domain.place(part.inputs, device)), part.labels.to(device)

    def answers(self, spec: CellSpec) -> Tensor:
        """What the victim says of the clean inputs of a cell's slice, each fed alone."""
        span = spec.first, spec.last
        if self._answered is None or self._answered[0] != span:
            victim = self.victim
            with torch.no_grad():
                said = [victim(single) for single in victim.domain.singles(self.inputs(spec)[0])]
            self._answered = span, victim.task.answer(victim.task.join(said))
        return self._answered[1]

    def _read(self, spec: CellSpec) -> Slice:
        """A cell's slice; read once for all cells in a row that need it."""
        span = spec.first, spec.last
        if self._slice is None or self._slice.span != span:
            domain = self.victim.domain
            inputs, labels = self.data.read(*span)
            inputs = domain.place(inputs, inputs.device)
            self._slice = Slice(span, inputs, labels, data_digest(domain, inputs, labels))
        return self._slice
