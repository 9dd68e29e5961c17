"""Which cells an evaluation is made of: checked and listed before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effattack.attacks import Attack, Clean, NearUniform, Noise, build
from effattack.cells import CellSpec, attack_digest, code_version, data_digest, victim_digest
from effattack.contract import check_declared
from effattack.errors import NotApplicable, UsageError
from effattack.fitting import prepared
from effattack.images import check_images, check_labels, to_grid
from effattack.measure.environment import environment
from effattack.threats import Linf
from effattack.victim import Victim

SLICE = 100
"""Images of one cell: what an interruption can lose."""


@dataclass(frozen=True)
class Cell:
    """One attack on one slice of the data; ``clean`` comes first in every slice."""

    spec: CellSpec
    attack: Attack
    images: Tensor
    labels: Tensor

    @property
    def work(self) -> float:
        """A guess of the MACs it takes, for the time left."""
        macs = self.attack.victim.max_macs
        passes = 3 * self.attack.gradients + 10
        return (macs if macs == macs else 1e6) * passes * len(self.images)


@dataclass(frozen=True)
class Plan:
    """All cells of one victim, and what will not be run."""

    victim: Victim
    cells: tuple[Cell, ...]
    skipped: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    timed: int
    energy: bool

    @property
    def timing(self) -> str:
        """Names the timing of a cell, beside the work of attacking; true of this machine only."""
        where = environment(self.victim.device)["device_name"]
        return f"timing of {self.timed} images on {where}{', with energy' * self.energy}"

    @property
    def work(self) -> float:
        """Of all cells, in MACs."""
        return sum(cell.work for cell in self.cells)


def plan(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack | str],
    *,
    eps: float = 8 / 255,
    seeds: Sequence[int] = (0,),
    timed: int = 16,
    energy: bool = False,
    fit: tuple[Tensor, Tensor] | None = None,
) -> Plan:
    """The cells of an evaluation, checked but not run; see :func:`effattack.evaluate`."""
    _check_arguments(victim, attacks, seeds, timed)
    check_images(images, victim.input_shape)
    check_labels(labels, len(images), victim.num_classes)
    check_declared(victim)
    notes = []
    if any(module.training for module in victim.modules()):
        notes.append(f"{victim.name} was in training mode: scored in eval mode")
    given = images.detach().to(victim.device, victim.dtype)
    clean, labels = to_grid(given), labels.to(victim.device)
    moved = (clean - given).abs().max().item()
    if moved > 1e-6:
        notes.append(f"{victim.name}: images rounded to the 8-bit grid (by at most {moved:.1e})")
    for note in notes:
        warnings.warn(note, stacklevel=3)
    ready, skipped = _attacks(victim, attacks, eps, seeds)
    ready = [prepared(attack, fit, clean) for attack in ready]
    digest = victim_digest(victim)
    cells: list[Cell] = []
    for first in range(0, len(clean), SLICE):
        rows = slice(first, first + SLICE)
        cells += _cells(digest, ready, clean[rows], labels[rows], first)
    timed = min(timed, len(clean), SLICE)
    return Plan(victim, tuple(cells), tuple(skipped), tuple(notes), timed, energy)


def _check_arguments(
    victim: Victim, attacks: Sequence[Attack | str], seeds: Sequence[int], timed: int
) -> None:
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{type(victim).__name__} is no effattack.Victim: wrap a model that cannot be opened "
            "as effattack.Opaque(model, input_shape)"
        )
    if isinstance(attacks, str) or not all(isinstance(a, Attack | str) for a in attacks):
        raise UsageError(
            f"attacks = {attacks!r}: give a list of attacks made for the victim, such as "
            "[Slowdown(victim)], or of names, such as ['Slowdown']"
        )
    if not seeds or timed < 0:
        raise UsageError(f"seeds = {seeds}, timed = {timed}: give at least one seed, timed >= 0")


def _attacks(
    victim: Victim, attacks: Sequence[Attack | str], eps: float, seeds: Sequence[int]
) -> tuple[list[Attack], list[dict[str, str]]]:
    """Controls first, then what was asked for, each once."""
    asked, skipped = [], []
    for given in attacks:
        if isinstance(given, str):
            made, reason = _built(given, victim, eps, seeds)
            asked += made
            skipped += reason
        elif given.victim is not victim:
            raise UsageError(
                f"{given.name} was made for {given.victim.name}, not for {victim.name}: "
                "make it for the victim that is evaluated"
            )
        else:
            asked.append(given)
    # noise in every budget; at eps, if any attack was asked for by its name
    rivals = [a.threat for a in asked if a.kind != "control"]
    if not rivals or any(isinstance(given, str) for given in attacks):
        rivals.append(Linf(eps))
    threats = sorted({str(t): t for t in rivals}.values(), key=lambda t: (t.name, t.eps))
    controls: list[Attack] = [Clean(victim)]
    controls += [Noise(victim, threat=t, seed=seed) for t in threats for seed in seeds]
    controls += [NearUniform(victim, seed=seed) for seed in seeds]
    ready: dict[str, Attack] = {}
    for attack in controls + asked:
        ready.setdefault(attack_digest(attack), attack)
    _check_distinct(ready.values())
    return list(ready.values()), skipped


def _built(
    name: str, victim: Victim, eps: float, seeds: Sequence[int]
) -> tuple[list[Attack], list[dict[str, str]]]:
    """The attack of a name, once per seed; or why it cannot apply."""
    try:
        return [build(name, victim, eps, seed) for seed in seeds], []
    except NotApplicable as error:
        return [], [{"victim": victim.name, "attack": name, "reason": str(error)}]


def _check_distinct(attacks: Iterable[Attack]) -> None:
    seen: dict[tuple[str, str, float, int], Attack] = {}
    for attack in attacks:
        identity = attack.name, attack.threat.name, attack.eps, attack.seed
        other = seen.setdefault(identity, attack)
        if other is not attack:
            raise UsageError(
                f"{attack!r} and {other!r} would share their rows: give them different options, "
                "budgets or seeds, or evaluate them apart"
            )


def _cells(
    digest: str,
    attacks: Sequence[Attack],
    images: Tensor,
    labels: Tensor,
    first: int,
) -> list[Cell]:
    """The cells of one slice of the data, in the order of the attacks."""
    data = data_digest(images, labels)
    return [
        Cell(
            CellSpec(
                work="attack",
                victim=attack.victim.name,
                victim_digest=digest,
                attack=attack.name,
                settings=f"{attack!r} {attack_digest(attack)}",
                eps=attack.eps,
                seed=attack.seed,
                first=first,
                last=first + len(images),
                data_digest=data,
                device=str(images.device),
                threads=torch.get_num_threads(),
                code=code_version(),
                torch=torch.__version__,
            ),
            attack,
            images,
            labels,
        )
        for attack in attacks
    ]
