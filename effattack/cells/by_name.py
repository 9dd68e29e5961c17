"""What a cell is made from, by name: any process, here or on another machine, can make it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from effattack.attacks.base import Attack
from effattack.cells.held import Held
from effattack.cells.lineup import Skipped, lineup
from effattack.cells.spec import CellSpec, Work, code_version
from effattack.domains import Batch, Domain
from effattack.errors import CellError, ContractError
from effattack.inputs.readers import Data
from effattack.inputs.source import Source, held_out
from effattack.victim import Victim, load_victim
from effattack.victim.undisturbed import seed_global_state

MOST = 2**30
"""Bytes of weights that a process keeps at hand, beside those of the victim that it runs."""


@dataclass(frozen=True)
class Named:
    """Names of a victim, of attacks and of data.

    Attributes:
        victim: registered name, or ``module:factory``.
        attacks: names, as the user gave them.
        budgets: l-inf radii, or threats as text, of attacks whose name tells none; empty: the usual
            one of the victim's domain.
        seeds: of each.
        data: where the images are.
        fit: what universal attacks learn from; None: those of ``data`` that are not scored.
        device: of the victim.
        twin: of a victim that is a file.
        through: the steps inside the victim's door, as text.
        refused: why the contract forbids to go on, as seen while it was planned.
    """

    victim: str
    attacks: tuple[str, ...]
    budgets: tuple[float | str, ...]
    seeds: tuple[int, ...]
    data: Source
    fit: Source | None
    device: str
    twin: str = ""
    through: str = ""
    refused: str = ""

    threads = 1
    """Of each cell: gradients differ between one and two, and cells stand side by side."""

    def opened(self, domain: Domain) -> Data:
        """The data, read anew."""
        return self.data.open(domain)

    def lineup(self, victim: Victim) -> tuple[list[Attack], list[Skipped]]:
        """Its attacks on a victim, and those that cannot apply."""
        fit = cache(partial(self._fitting, victim.domain))
        return lineup(victim, self.attacks, self.budgets, self.seeds, fit)

    def _fitting(self, domain: Domain) -> tuple[Batch, Tensor] | None:
        if self.fit is not None:
            return self.fit.open(domain).whole()
        if self.data.samples is None:
            return None
        inputs, labels = replace(self.data, samples=None).open(domain).whole()
        return held_out(domain, inputs, labels, self.data.samples)

    def open(self, spec: CellSpec) -> Held:
        """What it names, made in this process or kept from a cell before.

        Raises:
            CellError: if it is not what the cell was planned with.
            ContractError: if the victim was refused.
        """
        if self.refused:
            raise ContractError(self.refused)
        held = _at_hand(self)
        found = {
            "code": code_version(),
            "torch": torch.__version__,
            "victim_digest": held.digest,
            "data_digest": held.digest_of(spec),
        }
        for key, value in found.items():
            if value != getattr(spec, key):
                raise CellError(
                    f"{_WORDS[key]} here ({value}) from when the cell was planned "
                    f"({getattr(spec, key)}): {_REMEDIES[key]}"
                )
        if spec.work is not Work.CONTRACT and spec.attack_digest not in held.attacks:
            raise CellError(f"{spec.options} cannot be made again by name: {_REMEDIES['code']}")
        return held


def fresh(name: str, twin: str = "", through: str = "") -> Victim:
    """What :func:`~effattack.victim.load_victim` gives.

    A factory that draws weights draws the same ones in every process.
    """
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=()):
            seed_global_state(0)
            return load_victim(name, twin, through)
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


_kept: dict[Named, Held] = {}
"""What was made in this process, the latest last."""


def keep(named: Named, held: Held) -> None:
    """Have cells of this process take what is held in place of making it again."""
    _kept.pop(named, None)
    while sum(other.size for other in _kept.values()) > MOST:
        del _kept[next(iter(_kept))]
    _kept[named] = held


def _at_hand(named: Named) -> Held:
    held = _kept.get(named)
    if held is None:
        victim = fresh(named.victim, named.twin, named.through).to(named.device)
        held = Held(victim, named.lineup(victim)[0], named.data)
    keep(named, held)
    return held


_WORDS = {
    "code": "the code of effattack differs",
    "torch": "torch differs",
    "victim_digest": "the victim differs",
    "data_digest": "the data differ",
}
_REMEDIES = {
    "code": "install the same effattack on every node",
    "torch": "install the same torch on every node",
    "victim_digest": "its factory must give the same weights, settings and code each time",
    "data_digest": "the data must come in the same order each time: do not shuffle or augment",
}
