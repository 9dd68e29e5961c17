"""Cells: the unit of work that is run, stored and resumed.

A cell is one victim x attack x budget x seed x slice of the data. Its specification holds
everything that decides its rows; the hash of the specification names its file in the store.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

import effattack
from effattack.domains import Arrays, Batch, Domain
from effattack.errors import expect_least

FACES = ("cli", "pytest_plugin", "reporting", "suites")
"""What only shows what was found: the rest of effattack decides rows, or may."""


@cache
def code_version() -> str:
    """The version of effattack and a hash of its sources, so that edited code runs cells again."""
    root = Path(effattack.__file__).parent
    shown = {str(root / name) for name in FACES}
    digest = hashlib.sha256()
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if os.path.join(folder, name) not in shown)
        for name in sorted(files):
            if name.endswith(".py"):
                file = Path(folder) / name
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return f"{effattack.__version__}+{digest.hexdigest()[:12]}"


class Work(StrEnum):
    """What is done in a cell."""

    CONTRACT = "contract"
    ATTACK = "attack"
    TIMING = "timing"
    CERTIFICATE = "certificate"


@dataclass(frozen=True)
class Timed:
    """How latency is measured, and energy beside it.

    Attributes:
        calls: of the victim, clean and attacked; 0: none.
        batch_size: inputs per call.
        seconds: of timing per attack, at least; three passes over the inputs in any case.
        energy: whether energy is metered too.

    Raises:
        UsageError: naming what is out of range.
    """

    calls: int = 16
    batch_size: int = 1
    seconds: float = 0.0
    energy: bool = False

    def __post_init__(self) -> None:
        expect_least("timed", self.calls, 0)
        expect_least("batch_size", self.batch_size, 1)
        expect_least("seconds of timing", self.seconds, 0)

    @property
    def inputs(self) -> int:
        """How many the calls take together."""
        return self.calls * self.batch_size


UNTIMED = Timed(calls=0)


@dataclass(frozen=True)
class CellSpec:
    """What decides the rows of a cell."""

    work: Work
    victim: str = ""
    victim_digest: str = ""
    attack: str = ""
    """As tables call it."""
    options: str = ""
    """The attack with all that it was made with, for people."""
    attack_digest: str = ""
    eps: float = 0.0
    seed: int = 0
    first: int = 0
    last: int = 0
    data_digest: str = ""
    kept: int = 0
    """Of how many inputs, from the first on, the attacked ones are stored."""
    timed: Timed | None = None
    """How, of a timing."""
    place: str = ""
    """Name of the device that a timing is true of."""
    attacked: str = ""
    """Hash of the cells whose inputs are timed: other mates in a slice may have made others."""
    device: str = "cpu"
    threads: int = 1
    code: str = field(default_factory=code_version)
    torch: str = str(torch.__version__)

    @property
    def key(self) -> str:
        """Hash of the specification: the name of the cell's file."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def data_digest(domain: Domain, inputs: Batch, labels: Tensor) -> str:
    """Hash of inputs, as their domain tells them apart, and labels (B, ...)."""
    rows, labels = domain.pack(inputs), labels.detach().cpu()
    digest = hashlib.sha256(b"".join(rows))
    sizes = inputs.shape if isinstance(domain, Arrays) else map(len, rows)
    digest.update(str(tuple(sizes)).encode())
    if labels.dim() > 1:
        digest.update(str(tuple(labels.shape)).encode())
    digest.update((labels if labels.is_floating_point() else labels.long()).numpy().tobytes())
    return digest.hexdigest()[:16]
