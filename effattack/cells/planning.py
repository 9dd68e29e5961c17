"""Which cells an evaluation is made of: checked and listed before anything runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import index

from torch import Tensor

from effattack.attacks import Attack
from effattack.attacks.fitting import check_unseen
from effattack.cells.by_name import Named
from effattack.cells.held import About, Held
from effattack.cells.lineup import Budget, Skipped, lineup
from effattack.cells.plan import Cell, Plan, batch_notes
from effattack.cells.spec import UNTIMED, CellSpec, Timed, Work, data_digest
from effattack.domains import Batch
from effattack.errors import UsageError, expect_seed
from effattack.inputs.readers import InMemory
from effattack.inputs.source import slices
from effattack.results.selfchecks import CHECKED
from effattack.victim import Victim
from effattack.victim.checks import check_declared

SLICE = 100
"""Inputs of one cell: what an interruption can lose."""
PASSES = 35
"""Forward passes that the contract takes per input, about: an estimate for the time left."""
KEPT = 100
"""Inputs that are stored as they were attacked, at least: timing and pictures come from them."""


def plan(
    victim: Victim,
    inputs: Batch,
    labels: Tensor,
    attacks: Sequence[Attack | str],
    *,
    eps: Budget = None,
    seeds: Sequence[int] = (0,),
    timed: Timed = Timed(),  # noqa: B008 (frozen)
    fit: tuple[Batch, Tensor] | None = None,
) -> Plan:
    """The cells of an evaluation, checked but not run; see :func:`effattack.evaluate`."""
    _check_arguments(victim, attacks)
    seeds = _whole(seeds)
    victim.domain.check(inputs)
    victim.task.check(labels, len(inputs))
    notes = check_declared(victim.checked or victim)
    ready, skipped = lineup(victim, attacks, (eps,), seeds, lambda: fit)
    held = Held(victim, ready, InMemory(inputs, labels))
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
    """The cells of a victim, its attacks and its data; goes through all inputs once.

    Args:
        held: the three, at hand.
        made_from: what the process that runs a cell takes them from, and where it runs.
        skipped: attacks that cannot apply, and why.
        notes: what is to be told with the results already.
        size: inputs per slice; of a remote victim, one.
        timed: how latency is measured; of a remote victim, not at all: its answers bring theirs.
    """
    victim, domain, about = held.victim, held.victim.domain, About.of(held.victim)
    notes = list(notes)
    if victim.remote:
        size, timed = 1, UNTIMED
    if any(module.training for module in victim.modules()):
        notes.append(f"{victim.name} was in training mode: scored in eval mode")
    cells: list[Cell] = []
    moved, count = 0.0, 0
    timed_parts: list[tuple[Batch, Tensor]] = []
    for first, inputs, labels in slices(held.data, size):
        domain.check(inputs)
        victim.task.check(labels, len(inputs))
        inputs = domain.place(inputs, inputs.device)
        fed = domain.snap(inputs)
        check_unseen(held.attacks.values(), fed)
        moved = max(moved, _moved(fed, inputs))
        count = first + len(inputs)
        if first < timed.inputs:
            timed_parts.append((inputs, labels))
        base = CellSpec(
            Work.ATTACK,
            victim=victim.name,
            victim_digest=held.digest,
            first=first,
            last=count,
            data_digest=data_digest(domain, inputs, labels),
            kept=max(KEPT, timed.inputs),
            device=made_from.device,
            threads=made_from.threads,
        )
        if first == 0:
            cells.append(_contract(victim, inputs, labels, base, made_from))
        cells += [_cell(attack, digest, base, made_from) for digest, attack in held.attacks.items()]
    if moved > 1e-6:
        grid = "the 8-bit grid" if domain.kind == "pixels" else "the steps of the device"
        notes.append(f"{victim.name}: {domain.nouns} rounded to {grid} (by at most {moved:.1e})")
    whole = min(timed.calls, count // timed.batch_size) * timed.batch_size
    notes += batch_notes(victim.name, domain.nouns, timed, count)
    for note in notes:
        warnings.warn(note, stacklevel=4)
    return Plan(
        about,
        tuple(cells),
        tuple(skipped),
        tuple(notes),
        timed,
        timed_inputs=whole,
        timed_digest=_digest_of(victim, timed_parts, whole),
        domain=domain,
        threats=_threats(held.attacks.values()),
    )


def refused(victim: Victim, named: Named) -> Plan:
    """The plan of a victim that breaks the contract before any input is read."""
    spec = CellSpec(Work.CONTRACT, victim=victim.name, device=named.device)
    contract = Cell(spec, named, "control", "", 0, 0.0)
    return Plan(About.of(victim), (contract,), refused=named.refused)


def _threats(attacks: Iterable[Attack]) -> dict[tuple[str, float], tuple[str, ...]]:
    """Name and size -> the texts of the threats that have them, each once."""
    found: dict[tuple[str, float], dict[str, None]] = {}
    for attack in attacks:
        found.setdefault((attack.threat.name, attack.eps), {})[str(attack.threat)] = None
    return {budget: tuple(texts) for budget, texts in found.items()}


def _moved(fed: Batch, inputs: Batch) -> float:
    """The largest change of a value by rounding, of arrays."""
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return 0.0
    return (fed - inputs).abs().max().item()


def _digest_of(victim: Victim, parts: Sequence[tuple[Batch, Tensor]], count: int) -> str:
    """Of the first inputs and labels of some slices; of none, nothing."""
    if not count:
        return ""
    inputs, labels = zip(*parts, strict=True)
    domain, task = victim.domain, victim.task
    return data_digest(domain, domain.join(inputs)[:count], task.join(labels)[:count])


def _contract(
    victim: Victim, inputs: Batch, labels: Tensor, base: CellSpec, made_from: Held | Named
) -> Cell:
    """Known by the victim and these inputs alone: other attacks find it finished."""
    own = min(CHECKED // 2, len(inputs))
    digest = data_digest(victim.domain, inputs[:own], labels[:own])
    spec = replace(base, work=Work.CONTRACT, last=own, data_digest=digest, kept=0)
    return Cell(spec, made_from, "control", "", 0, PASSES * CHECKED * About.of(victim).work)


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
