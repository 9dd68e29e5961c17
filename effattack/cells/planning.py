"""Which cells an evaluation is made of: checked and listed before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import index

import torch
from torch import Tensor

from effattack.attacks import Attack, Clean, NearUniform, Noise, build
from effattack.attacks.fitting import Fit, check_unseen, prepared
from effattack.cells.held import About, Held, Maker, settings
from effattack.cells.plan import Cell, Plan, batch_notes, check_timing
from effattack.cells.spec import CellSpec, code_version, data_digest
from effattack.domains.pixels import check_images, in_float32, to_grid
from effattack.errors import NotApplicable, UsageError, expect_seed
from effattack.inputs.readers import Arrays
from effattack.inputs.source import slices
from effattack.results.selfchecks import CHECKED
from effattack.tasks.classes import check_labels
from effattack.threats import Linf
from effattack.victim import Victim
from effattack.victim.checks import check_declared
from effattack.victim.digests import attack_digest

SLICE = 100
"""Images of one cell: what an interruption can lose."""
PASSES = 35
"""Forward passes that the contract takes per image, about: an estimate for the time left."""
KEPT = 100
"""Images whose attacked pixels are stored, at least: timing and pictures come from them."""


def plan(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack | str],
    *,
    eps: float = 8 / 255,
    seeds: Sequence[int] = (0,),
    timed: int = 16,
    batch_size: int = 1,
    seconds: float = 0.0,
    energy: bool = False,
    fit: tuple[Tensor, Tensor] | None = None,
) -> Plan:
    """The cells of an evaluation, checked but not run; see :func:`effattack.evaluate`."""
    _check_arguments(victim, attacks)
    seeds = _whole(seeds)
    check_timing(timed, batch_size, seconds)
    check_images(images, victim.input_shape)
    check_labels(labels, len(images), victim.num_classes)
    notes = check_declared(victim)
    ready, skipped = attacks_of(victim, attacks, (eps,), seeds, lambda: fit)
    held = Held(victim, ready, Arrays(in_float32(images), labels))
    return listed(
        held,
        held,
        skipped=skipped,
        notes=notes,
        size=SLICE,
        timed=timed,
        batch_size=batch_size,
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
    batch_size: int,
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
        timed: calls whose latency is measured.
        batch_size: images per call.
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
    moved, count, kept = 0.0, 0, max(KEPT, timed * batch_size)
    first_images: list[tuple[Tensor, Tensor]] = []
    for first, images, labels in slices(held.data, size):
        check_images(images, victim.input_shape)
        check_labels(labels, len(images), victim.num_classes)
        images = in_float32(images)
        check_unseen(held.attacks.values(), to_grid(images))
        moved = max(moved, (to_grid(images) - images).abs().max().item())
        count = first + len(images)
        if first < timed * batch_size:
            first_images.append((images, labels))
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
            kept=kept,
            device=device,
            threads=threads,
            code=code_version(),
            torch=torch.__version__,
        )
        if first == 0:
            cells.append(_contract(images, labels, base, maker, about))
        cells += [_cell(attack, base, maker) for attack in held.attacks.values()]
    if moved > 1e-6:
        notes.append(f"{victim.name}: images rounded to the 8-bit grid (by at most {moved:.1e})")
    whole = min(timed, count // batch_size) * batch_size
    notes += batch_notes(victim.name, timed, batch_size, count)
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return Plan(
        about,
        tuple(cells),
        tuple(skipped),
        tuple(notes),
        timed=whole,
        timed_digest=_digest_of(first_images, whole),
        batch_size=batch_size,
        seconds=seconds,
        energy=energy,
    )


def _digest_of(parts: Sequence[tuple[Tensor, Tensor]], count: int) -> str:
    """Of the first images and labels of some slices; of none, nothing."""
    if not count:
        return ""
    images, labels = (torch.cat(part)[:count] for part in zip(*parts, strict=True))
    return data_digest(images, labels)


def _contract(images: Tensor, labels: Tensor, base: CellSpec, maker: Maker, about: About) -> Cell:
    """Known by the victim and these images alone: other attacks find it finished."""
    own = min(CHECKED // 2, len(images))
    digest = data_digest(images[:own], labels[:own])
    spec = replace(base, work="contract", last=own, data_digest=digest, kept=0)
    return Cell(spec, maker, "control", "", 0, PASSES * CHECKED * about.work)


def refused(victim: Victim, maker: Maker, device: str, reason: str) -> Plan:
    """The plan of a victim that breaks the contract before any image is read."""
    spec = CellSpec(
        work="contract",
        victim=victim.name,
        victim_digest="",
        attack="",
        settings="",
        eps=0.0,
        seed=0,
        first=0,
        last=0,
        data_digest="",
        kept=0,
        device=device,
        threads=1,
        code=code_version(),
        torch=torch.__version__,
    )
    cell = Cell(spec, maker, "control", "", 0, 0.0)
    return Plan(
        About.of(victim),
        (cell,),
        (),
        (),
        timed=0,
        timed_digest="",
        batch_size=1,
        seconds=0.0,
        energy=False,
        refused=reason,
    )


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


def _whole(seeds: Sequence[int]) -> list[int]:
    """Seeds of any whole type, NumPy's and torch's included, as Python's."""
    try:
        whole = [index(seed) for seed in seeds]
    except TypeError as error:
        raise UsageError(f"seeds = {seeds!r}: give a list of whole numbers ({error})") from error
    if not whole:
        raise UsageError(f"seeds = {seeds!r}: give at least one")
    for seed in whole:
        expect_seed(seed)
    return whole


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
