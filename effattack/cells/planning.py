"""Which cells an evaluation is made of: checked and listed before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from operator import index

import torch
from torch import Tensor

from effattack.attacks import Attack
from effattack.attacks.fitting import check_unseen
from effattack.cells.by_name import Named
from effattack.cells.held import About, Held
from effattack.cells.lineup import Skipped, lineup
from effattack.cells.plan import Cell, Plan, batch_notes
from effattack.cells.spec import CellSpec, Timed, Work, data_digest
from effattack.domains.pixels import check_images, in_float32, to_grid
from effattack.errors import UsageError, expect_seed
from effattack.inputs.readers import Arrays
from effattack.inputs.source import slices
from effattack.results.selfchecks import CHECKED
from effattack.tasks.classes import check_labels
from effattack.victim import Victim
from effattack.victim.checks import check_declared

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
    timed: Timed = Timed(),  # noqa: B008 (frozen)
    fit: tuple[Tensor, Tensor] | None = None,
) -> Plan:
    """The cells of an evaluation, checked but not run; see :func:`effattack.evaluate`."""
    _check_arguments(victim, attacks)
    seeds = _whole(seeds)
    check_images(images, victim.input_shape)
    check_labels(labels, len(images), victim.num_classes)
    notes = check_declared(victim)
    ready, skipped = lineup(victim, attacks, (eps,), seeds, lambda: fit)
    held = Held(victim, ready, Arrays(in_float32(images), labels))
    return listed(held, held, skipped=skipped, notes=notes, size=SLICE, timed=timed)


def listed(
    held: Held,
    made_from: Held | Named,
    *,
    skipped: Sequence[Skipped],
    notes: Sequence[str],
    size: int,
    timed: Timed,
) -> Plan:
    """The cells of a victim, its attacks and its data; goes through all images once.

    Args:
        held: the three, at hand.
        made_from: what the process that runs a cell takes them from, and where it runs.
        skipped: attacks that cannot apply, and why.
        notes: what is to be told with the results already.
        size: images per slice.
        timed: how latency is measured.
    """
    victim, about = held.victim, About.of(held.victim)
    notes = list(notes)
    if any(module.training for module in victim.modules()):
        notes.append(f"{victim.name} was in training mode: scored in eval mode")
    cells: list[Cell] = []
    moved, count = 0.0, 0
    first_images: list[tuple[Tensor, Tensor]] = []
    for first, images, labels in slices(held.data, size):
        check_images(images, victim.input_shape)
        check_labels(labels, len(images), victim.num_classes)
        images = in_float32(images)
        check_unseen(held.attacks.values(), to_grid(images))
        moved = max(moved, (to_grid(images) - images).abs().max().item())
        count = first + len(images)
        if first < timed.images:
            first_images.append((images, labels))
        base = CellSpec(
            Work.ATTACK,
            victim=victim.name,
            victim_digest=held.digest,
            first=first,
            last=count,
            data_digest=data_digest(images, labels),
            kept=max(KEPT, timed.images),
            device=made_from.device,
            threads=made_from.threads,
        )
        if first == 0:
            cells.append(_contract(images, labels, base, made_from, about))
        cells += [_cell(attack, digest, base, made_from) for digest, attack in held.attacks.items()]
    if moved > 1e-6:
        notes.append(f"{victim.name}: images rounded to the 8-bit grid (by at most {moved:.1e})")
    whole = min(timed.calls, count // timed.batch_size) * timed.batch_size
    notes += batch_notes(victim.name, timed, count)
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return Plan(
        about,
        tuple(cells),
        tuple(skipped),
        tuple(notes),
        timed,
        timed_images=whole,
        timed_digest=_digest_of(first_images, whole),
    )


def refused(victim: Victim, named: Named) -> Plan:
    """The plan of a victim that breaks the contract before any image is read."""
    spec = CellSpec(Work.CONTRACT, victim=victim.name, device=named.device)
    contract = Cell(spec, named, "control", "", 0, 0.0)
    return Plan(About.of(victim), (contract,), refused=named.refused)


def _digest_of(parts: Sequence[tuple[Tensor, Tensor]], count: int) -> str:
    """Of the first images and labels of some slices; of none, nothing."""
    if not count:
        return ""
    images, labels = (torch.cat(part)[:count] for part in zip(*parts, strict=True))
    return data_digest(images, labels)


def _contract(
    images: Tensor, labels: Tensor, base: CellSpec, made_from: Held | Named, about: About
) -> Cell:
    """Known by the victim and these images alone: other attacks find it finished."""
    own = min(CHECKED // 2, len(images))
    digest = data_digest(images[:own], labels[:own])
    spec = replace(base, work=Work.CONTRACT, last=own, data_digest=digest, kept=0)
    return Cell(spec, made_from, "control", "", 0, PASSES * CHECKED * about.work)


def _cell(attack: Attack, digest: str, base: CellSpec, made_from: Held | Named) -> Cell:
    spec = replace(
        base,
        attack=attack.name,
        options=repr(attack),
        attack_digest=digest,
        eps=attack.eps,
        seed=attack.seed,
    )
    count, steps = spec.last - spec.first, attack.gradients
    passes = 3 * steps + attack.settings.get("queries", 0) + 10
    work = About.of(attack.victim).work
    return Cell(
        spec, made_from, attack.kind, attack.threat.name, count * steps, count * passes * work
    )


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
