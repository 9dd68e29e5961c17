"""What an evaluation is made of: cells, the timings that follow them, and the plan of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from effattack.cells.by_name import Named
from effattack.cells.held import About, Held
from effattack.cells.lineup import Skipped
from effattack.cells.spec import UNTIMED, CellSpec, Timed, Work
from effattack.domains import Domain
from effattack.victim.digests import hash_text

Budget = tuple[str, float]
"""Name and size of a threat, as the frame has them."""
FEWEST = 6
"""Timed calls that carry an interval."""


@dataclass(frozen=True)
class Cell:
    """One unit of work: what decides its rows, and from what any process makes them.

    ``gradients`` and ``macs`` are estimates: gradient evaluations of single inputs, and the work
    altogether, for the time left.
    """

    spec: CellSpec
    made_from: Held | Named
    kind: str
    threat: str
    gradients: int
    macs: float


@dataclass(frozen=True)
class Timing(Cell):
    """Latency and energy of the inputs that attack cells stored, on a device of its own."""

    attacked: tuple[CellSpec, ...]
    """The slices that hold these inputs."""


@dataclass(frozen=True)
class Plan:
    """All cells of one victim, and what will not be run."""

    about: About
    cells: tuple[Cell, ...]
    """The contract, and the attacks that wait for it."""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    timed: Timed = UNTIMED
    timed_inputs: int = 0
    """How many there are for the timed calls: whole batches."""
    timed_digest: str = ""
    """Of their data."""
    domain: Domain | None = None
    """Of its inputs; None where none were read."""
    threats: Mapping[Budget, tuple[str, ...]] = field(default_factory=dict)
    """The threats of its attacks as text, by name and size, which some share."""
    refused: str = ""
    """Why the victim will not be attacked, if that is known already."""

    def timings(self, place: str) -> tuple[Timing, ...]:
        """Of the first inputs under each attack, clean against clean first.

        Args:
            place: the device, by name: a timing is true of it alone.
        """
        slices: dict[CellSpec, list[Cell]] = {}
        for cell in self.attacks:
            if cell.spec.first < self.timed_inputs:
                spec = replace(
                    cell.spec,
                    work=Work.TIMING,
                    first=0,
                    last=self.timed_inputs,
                    data_digest=self.timed_digest,
                    timed=self.timed,
                    place=place,
                )
                slices.setdefault(spec, []).append(cell)
        return tuple(
            Timing(
                replace(spec, attacked=_identity(cells)),
                cells[0].made_from,
                cells[0].kind,
                cells[0].threat,
                gradients=0,
                macs=30 * self.timed_inputs * self.about.work,
                attacked=tuple(cell.spec for cell in cells),
            )
            for spec, cells in slices.items()
        )

    @property
    def contract(self) -> Cell:
        """What is run first: no attack on a victim that breaks the contract means anything."""
        return self.cells[0]

    @property
    def attacks(self) -> tuple[Cell, ...]:
        """What waits for it."""
        return self.cells[1:]


def _identity(cells: Iterable[Cell]) -> str:
    """Of attacked inputs: other mates in a slice may have made them others."""
    return hash_text(" ".join(cell.spec.key for cell in cells))


def batch_notes(name: str, nouns: str, timed: Timed, count: int) -> list[str]:
    """What there is to say of latency where the inputs are too few for the batches."""
    size = timed.batch_size
    if not timed.calls or size == 1 or count // size >= FEWEST:
        return []
    return [
        f"{name}: {count} {nouns} are {count // size} batches of {size}, and latency "
        f"takes {FEWEST} for an interval: score at least {FEWEST * size} {nouns}"
    ]
