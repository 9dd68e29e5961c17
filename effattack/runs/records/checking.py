"""Whether a record holds: its inputs go through the deployed path, and all it claims is counted."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from effattack.domains import Batch
from effattack.errors import EffattackError, RecordError
from effattack.inputs.changes import changed
from effattack.measure.statistics import Interval
from effattack.results.records.record import Record
from effattack.runs.records.bench import Bench
from effattack.runs.records.counting import about, claims
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim
from effattack.victim.digests import weights_digest
from effattack.victim.rounding import on_knife_edge
from effattack.victim.undisturbed import undisturbed

FACTS = ("family", "constant", "dense_macs", "currency")
"""What a record tells of its victim that scores are made from."""
IDENTITY = ("victim", "twin", "through", "threat", "data", "indices", "digests")
"""What two records of one thing share."""
EXCUSED = 0.05
"""Share of inputs that may differ because a decision lies within rounding of its threshold, where
another processor rounds otherwise; beyond it no score is judged, here as everywhere."""


class Holds(NamedTuple):
    """A record that was counted again."""

    success: float
    savings: Interval
    remarks: tuple[str, ...]
    """What differs here, and decides nothing."""


def verify(record: Record, bench: Bench) -> Holds:
    """Count a record again.

    Raises:
        RecordError: if it does not hold: why, and by how much.
        UsageError: for a victim or data that are not here, with how to get them.
        ContractError: if the victim does not do the work that it declares.
    """
    victim, clean = bench.victim(record), bench.clean(record)
    threat = _threat(record, victim)
    attacked = _attacked(record, victim, clean.inputs)
    if wrong := threat.flaw(attacked, clean.inputs):
        raise RecordError(wrong)
    here = about(victim)
    for fact in FACTS:
        if here[fact] != record.about.get(fact):
            raise RecordError(f"{fact} is {here[fact]}, claimed {record.about.get(fact)}")
    counted = claims(victim, clean.rows, clean.inputs, clean.labels, threat, attacked)
    remarks = _compared(record, counted, victim, clean.inputs, attacked)
    if (weights := weights_digest(victim)) != record.weights:
        remarks.append(f"other weights here ({weights}) than when it was made ({record.weights})")
    rows = record.rows
    return Holds(rows.success(), rows.savings, tuple(remarks))


def expect_better(new: Record, old: Record) -> None:
    """Refuse a record that cannot take the place of another.

    Raises:
        RecordError: if they are not of the same victim, threat and inputs, or the attack success is
            no higher.
    """
    for name in IDENTITY:
        if getattr(new, name) != getattr(old, name):
            raise RecordError(f"it cannot be compared with the other, whose {name} differ")
    ours, theirs = new.rows.success(), old.rows.success()
    if not ours > theirs:
        raise RecordError(f"it is no better than the other: {ours:.2%} against {theirs:.2%}")


def _threat(record: Record, victim: Victim) -> Threat:
    try:
        return parse_threat(record.threat).on(victim.domain)
    except EffattackError as error:
        raise RecordError(f"its threat is none here: {error}") from error


def _attacked(record: Record, victim: Victim, clean: Batch) -> Batch:
    """The attacked inputs, on the grid of what a deployed model can be fed."""
    domain = victim.domain
    rows = changed(record.changes, domain.pack(clean))
    try:
        attacked = domain.place(domain.unpack(rows, clean), victim.device)
        domain.check(attacked)
        same = domain.pack(domain.snap(attacked)) == rows
    except (EffattackError, RuntimeError, ValueError, struct.error) as error:
        raise RecordError(f"its changes make no {domain.nouns}: {error}") from error
    if not same:
        raise RecordError(f"its {domain.nouns} are off the grid or out of the range of the domain")
    return attacked


def _compared(
    record: Record, counted: Mapping[str, list[Any]], victim: Victim, clean: Batch, attacked: Batch
) -> list[str]:
    """Remarks on claims that differ within rounding.

    Raises:
        RecordError: for claims that differ otherwise, with what was counted.
    """
    if counted.keys() != record.claims.keys():
        raise RecordError(f"it claims {', '.join(record.claims)}, counted are {', '.join(counted)}")
    differing = [
        row
        for row in range(len(record.indices))
        if any(counted[column][row] != record.claims[column][row] for column in counted)
    ]
    if not differing:
        return []
    noun, nouns = victim.domain.noun, victim.domain.nouns
    near = all(_near(victim, row, clean) or _near(victim, row, attacked) for row in differing)
    told = f"{len(differing)} of {len(record.indices)} {nouns} differ"
    if near and len(differing) <= EXCUSED * len(record.indices):
        return [f"{told}, which lie within rounding of a threshold"]
    first = differing[0]
    what = ", ".join(
        f"{column} {counted[column][first]}, claimed {record.claims[column][first]}"
        for column in counted
        if counted[column][first] != record.claims[column][first]
    )
    raise RecordError(
        f"{_success(replace(record, claims=counted))} is counted, {_success(record)} claimed; "
        f"{told} ({noun} {record.indices[first]}: {what})"
    )


def _near(victim: Victim, row: int, batch: Batch) -> bool:
    """Whether rounding alone may turn a decision on a row of a batch."""
    with undisturbed(victim), torch.no_grad():
        return bool(on_knife_edge(victim.trace(victim.domain.singles(batch)[row])).any())


def _success(record: Record) -> str:
    return f"attack success {record.rows.success():.2%}"
