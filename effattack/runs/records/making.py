"""Making records: of an attack by name, or of attacked inputs that somebody else has."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import torch

import effattack
from effattack.attacks import build
from effattack.attacks.base import Knowledge
from effattack.cells.by_name import fresh
from effattack.cells.performing import threads
from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.inputs.changes import changes
from effattack.inputs.source import source_of
from effattack.results.records.record import Record
from effattack.runs.records.counting import about, claims, clean_rows
from effattack.threats import parse_threat
from effattack.victim import Victim
from effattack.victim.digests import weights_digest


def attacked(
    name: str,
    attack: str,
    threat: str,
    samples: int = 50,
    *,
    seed: int = 0,
    twin: str = "",
    through: str = "",
    data: str | None = None,
    by: str = "",
) -> Record:
    """The record of an attack on a victim.

    Args:
        name, twin, through: of the victim; see :func:`effattack.victim.load_victim`.
        attack: its name, with options.
        threat: what it may change, ``"linf:8/255"``.
        samples: inputs, evenly spread over the data.
        seed: of the attack.
        data: where they are; None: the victim's own.
        by: who publishes it, for people.

    Raises:
        UsageError: for what is not known, or does not apply.
    """
    victim = fresh(name, twin, through)
    opened = source_of(data, victim).open(victim.domain)
    count = min(samples, len(opened))
    indices = [i * len(opened) // count for i in range(count)]
    made = build(attack, victim, parse_threat(threat), seed)
    with threads(1):
        found = made(*opened.rows(indices))
    return recorded(
        victim,
        found,
        name=name,
        twin=twin,
        through=through,
        threat=threat,
        attack=made.name,
        knowledge=made.knowledge,
        indices=indices,
        data=data,
        by=by,
    )


def recorded(
    victim: Victim,
    found: Batch,
    *,
    threat: str,
    attack: str,
    indices: Sequence[int],
    knowledge: Knowledge = "white box",
    name: str | None = None,
    twin: str = "",
    through: str = "",
    data: str | None = None,
    by: str = "",
) -> Record:
    """The record of attacked inputs, whoever found them: they are counted here.

    Args:
        victim: on CPU.
        found: attacked inputs, one per index.
        threat: that they keep to, ``"linf:8/255"``.
        attack: who found them, in words.
        indices: of the clean inputs in the data.
        knowledge: what that attacker sees of the victim.
        name, twin, through: that the victim is loaded by; None: its own name.
        data: where the clean inputs are; None: the victim's own.
        by: who publishes it, for people.

    Raises:
        UsageError: for inputs outside the threat, or data that cannot be used.
        ContractError: if the victim does not do the work that it declares.
    """
    domain, source = victim.domain, source_of(data, victim)
    inputs, labels = source.open(domain).rows(indices)
    domain.check(inputs)
    clean = domain.snap(domain.place(inputs, victim.device))
    allowed = parse_threat(threat).on(domain)
    found = domain.place(found, victim.device)
    if wrong := allowed.flaw(found, clean):
        raise UsageError(f"{wrong}: no record can hold them")
    digests = domain.fingerprints(clean)
    if len(set(digests)) < len(digests):
        raise UsageError(f"two of the clean {domain.nouns} are equal: give each index once")
    return Record(
        victim=name or victim.name,
        twin=twin,
        through=through,
        weights=weights_digest(victim),
        about=about(victim),
        threat=threat,
        attack=attack,
        knowledge=knowledge,
        data=data or str(victim.data),
        indices=tuple(indices),
        digests=tuple(digests),
        claims=claims(victim, clean_rows(victim, clean, labels), clean, labels, allowed, found),
        made={
            "by": by,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "effattack": effattack.__version__,
            "torch": str(torch.__version__),
            "machine": platform.machine(),
        },
        changes=tuple(changes(domain.pack(found), domain.pack(clean))),
    )
