"""Which cells an evaluation is made of: checked and listed before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from effattack.attacks import Attack, Clean, NearUniform, Noise, build
from effattack.cells import CellSpec, attack_digest, code_version, data_digest
from effattack.contract import check_declared
from effattack.data import slices
from effattack.errors import NotApplicable, UsageError
from effattack.fitting import Fit, check_unseen, prepared
from effattack.images import check_images, check_labels, to_grid
from effattack.materials import About, Held, Maker, settings
from effattack.sources import Arrays
from effattack.threats import Linf
from effattack.victim import Victim

SLICE = 100
"""Images of one cell: what an interruption can lose."""
KEPT = 100
"""Images whose attacked pixels are stored: timing and pictures come from them."""


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
    """Latency and energy of the images that an attack cell stored, on a device of its own."""

    attacked: CellSpec
    count: int
    seconds: float
    energy: bool


@dataclass(frozen=True)
class Plan:
    """All cells of one victim, and what will not be run."""

    about: About
    cells: tuple[Cell, ...]
    skipped: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    timed: int
    seconds: float
    energy: bool

    def timings(self, place: str) -> tuple[Timing, ...]:
        """Of the first slice under each attack, clean against clean first.

        Args:
            place: the device, by name: a timing is true of it alone.
        """
        long = f"for {self.seconds:g} s " * (self.seconds > 0)
        work = f"timing of {self.timed} images {long}on {place}{', with energy' * self.energy}"
        return tuple(
            Timing(
                replace(cell.spec, work=work),
                cell.maker,
                cell.kind,
                cell.threat,
                gradients=0,
                macs=30 * self.timed * self.about.work,
                attacked=cell.spec,
                count=self.timed,
                seconds=self.seconds,
                energy=self.energy,
            )
            for cell in self.cells
            if self.timed and cell.spec.work == "attack" and cell.spec.first == 0
        )

    @property
    def macs(self) -> float:
        """An estimate of the work of all cells."""
        return sum(cell.macs for cell in (*self.cells, *self.timings("")))


def plan(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack | str],
    *,
    eps: float = 8 / 255,
    seeds: Sequence[int] = (0,),
    timed: int = 16,
    seconds: float = 0.0,
    energy: bool = False,
    fit: tuple[Tensor, Tensor] | None = None,
) -> Plan:
    """The cells of an evaluation, checked but not run; see :func:`effattack.evaluate`."""
    _check_arguments(victim, attacks, seeds, timed, seconds)
    check_images(images, victim.input_shape)
    check_labels(labels, len(images), victim.num_classes)
    check_declared(victim)
    ready, skipped = attacks_of(victim, attacks, (eps,), seeds, lambda: fit)
    held = Held(victim, ready, Arrays(images.detach(), labels))
    return listed(
        held,
        held,
        skipped=skipped,
        notes=[],
        size=SLICE,
        timed=timed,
        seconds=seconds,
        energy=energy,
        device=str(victim.device),
        threads=torch.get_num_threads(),
    )


def listed(
    held: Held,
    maker: Maker,
    *,
    skipped: Sequence[dict[str, str]],
    notes: Sequence[str],
    size: int,
    timed: int,
    seconds: float,
    energy: bool,
    device: str,
    threads: int,
) -> Plan:
    """The cells of a victim, its attacks and its data; goes through all images once.

    Args:
        held: the three, at hand.
        maker: from what the process that runs a cell takes them.
        skipped: attacks that cannot apply, and why.
        notes: what is to be told with the results already.
        size: images per slice.
        timed: images whose latency is measured.
        seconds: of timing per attack, at least.
        energy: whether their energy is metered too.
        device: where cells run.
        threads: of each cell.
    """
    victim, about = held.victim, About.of(held.victim)
    notes = list(notes)
    if any(module.training for module in victim.modules()):
        notes.append(f"{victim.name} was in training mode: scored in eval mode")
    cells: list[Cell] = []
    moved, count = 0.0, 0
    for first, images, labels in slices(held.data, size):
        check_images(images, victim.input_shape)
        check_labels(labels, len(images), victim.num_classes)
        check_unseen(held.attacks.values(), to_grid(images))
        moved = max(moved, (to_grid(images) - images).abs().max().item())
        count = first + len(images)
        base = CellSpec(
            work="attack",
            victim=victim.name,
            victim_digest=held.digest,
            attack="",
            settings="",
            eps=0.0,
            seed=0,
            first=first,
            last=count,
            data_digest=data_digest(images, labels),
            device=device,
            threads=threads,
            code=code_version(),
            torch=torch.__version__,
        )
        if first == 0:
            cells.append(
                Cell(replace(base, work="checks"), maker, "control", "", 0, 100 * about.work)
            )
        cells += [_cell(attack, base, maker) for attack in held.attacks.values()]
    if moved > 1e-6:
        notes.append(f"{victim.name}: images rounded to the 8-bit grid (by at most {moved:.1e})")
    for note in notes:
        warnings.warn(note, stacklevel=4)
    timed = min(timed, count, size, KEPT)
    return Plan(about, tuple(cells), tuple(skipped), tuple(notes), timed, seconds, energy)


def _cell(attack: Attack, base: CellSpec, maker: Maker) -> Cell:
    spec = replace(
        base, attack=attack.name, settings=settings(attack), eps=attack.eps, seed=attack.seed
    )
    count, steps = spec.last - spec.first, attack.gradients
    passes = 3 * steps + attack.settings.get("queries", 0) + 10
    work = About.of(attack.victim).work
    return Cell(spec, maker, attack.kind, attack.threat.name, count * steps, count * passes * work)


def attacks_of(
    victim: Victim,
    attacks: Sequence[Attack | str],
    budgets: Sequence[float],
    seeds: Sequence[int],
    fit: Fit,
) -> tuple[list[Attack], list[dict[str, str]]]:
    """Controls and what was asked for in all budgets, each once; and what cannot apply.

    Args:
        victim, attacks, budgets, seeds: what to make.
        fit: gives the images and labels that unfitted universal attacks learn from.
    """
    ready: dict[str, Attack] = {}
    skipped: list[dict[str, str]] = []
    for eps in budgets:
        found, reasons = _attacks(victim, attacks, eps, seeds)
        for attack in found:
            ready.setdefault(attack_digest(attack), attack)
        skipped += [reason for reason in reasons if reason not in skipped]
    _check_distinct(ready.values())
    return [prepared(attack, fit) for attack in ready.values()], skipped


def _check_arguments(
    victim: Victim,
    attacks: Sequence[Attack | str],
    seeds: Sequence[int],
    timed: int,
    seconds: float,
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
    if not seeds or timed < 0 or not 0 <= seconds < float("inf"):
        raise UsageError(
            f"seeds = {seeds}, timed = {timed}, seconds = {seconds}: give at least one seed, and "
            "images and seconds to time of 0 or more"
        )


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
