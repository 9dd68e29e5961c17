"""What an evaluation is made of: cells, the timings that follow them, and the plan of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from effattack.cells.held import About, Maker
from effattack.cells.spec import CellSpec
from effattack.errors import expect_least
from effattack.victim.digests import hash_text

FEWEST = 6
"""Timed calls that carry an interval."""


@dataclass(frozen=True)
class Cell:
    """One unit of work: what decides its rows, and from what any process makes them.

    ``gradients`` and ``macs`` are estimates: gradient evaluations of single images, and the work
    altogether, for the time left.
    """

    spec: CellSpec
    maker: Maker
    kind: str
    threat: str
    gradients: int
    macs: float


@dataclass(frozen=True)
class Timing(Cell):
    """Latency and energy of the images that attack cells stored, on a device of its own."""

    attacked: tuple[CellSpec, ...]
    """The slices that hold these images."""
    batch_size: int
    seconds: float
    energy: bool


@dataclass(frozen=True)
class Plan:
    """All cells of one victim, and what will not be run."""

    about: About
    cells: tuple[Cell, ...]
    """The contract, and the attacks that wait for it."""
    skipped: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    timed: int
    """Images whose latency is measured."""
    timed_digest: str
    """Of their data."""
    batch_size: int
    seconds: float
    energy: bool
    refused: str = ""
    """Why the victim will not be attacked, if that is known already."""

    def timings(self, place: str) -> tuple[Timing, ...]:
        """Of the first images under each attack, clean against clean first.

        Args:
            place: the device, by name: a timing is true of it alone.
        """
        long = f"for {self.seconds:g} s " * (self.seconds > 0)
        batches = f"in batches of {self.batch_size} " * (self.batch_size > 1)
        what = f"timing of {self.timed} images {batches}{long}on {place}"
        what += ", with energy" * self.energy
        slices: dict[CellSpec, list[Cell]] = {}
        for cell in self.attacks:
            if cell.spec.first < self.timed:
                spec = replace(
                    cell.spec, work=what, first=0, last=self.timed, data_digest=self.timed_digest
                )
                slices.setdefault(spec, []).append(cell)
        return tuple(
            Timing(
                replace(spec, work=f"{spec.work}, {_identity(cells)}"),
                cells[0].maker,
                cells[0].kind,
                cells[0].threat,
                gradients=0,
                macs=30 * self.timed * self.about.work,
                attacked=tuple(cell.spec for cell in cells),
                batch_size=self.batch_size,
                seconds=self.seconds,
                energy=self.energy,
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

    @property
    def macs(self) -> float:
        """An estimate of the work of all cells."""
        return sum(cell.macs for cell in (*self.cells, *self.timings("")))


def _identity(cells: Iterable[Cell]) -> str:
    """Of attacked images: other mates in a slice may have made them others."""
    return hash_text(" ".join(cell.spec.key for cell in cells))


def batch_notes(name: str, timed: int, batch_size: int, count: int) -> list[str]:
    """What there is to say of latency where the images are too few for the batches."""
    if not timed or batch_size == 1 or count // batch_size >= FEWEST:
        return []
    return [
        f"{name}: {count} images are {count // batch_size} batches of {batch_size}, and latency "
        f"takes {FEWEST} for an interval: score at least {FEWEST * batch_size} images"
    ]


def check_timing(timed: int, batch_size: int, seconds: float) -> None:
    """Refuse what cannot be timed.

    Raises:
        UsageError: naming what is out of range.
    """
    expect_least("timed", timed, 0)
    expect_least("batch_size", batch_size, 1)
    expect_least("seconds of timing", seconds, 0)
