"""Finite budgets: every input of the threat is run, and the worst case is known.

A swap in a short prompt over a small vocabulary makes some hundred prompts, a suffix of two words
some thousand. Where the list is short enough, certificate and attack are one.
"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from effattack.certify.certificate import Certificate
from effattack.certify.kinds import covered
from effattack.certify.spending import AT_ONCE, ceiling_of, spent
from effattack.domains import Batch
from effattack.errors import NotApplicable
from effattack.threats import Threat
from effattack.victim import Victim, audit
from effattack.victim.undisturbed import undisturbed

MOST = 100_000
"""Inputs that are run unless more are asked for, over all clean ones."""


def enumeration(victim: Victim, inputs: Batch, threat: Threat, *, most: int = MOST) -> Certificate:
    """The exact worst case over all inputs of a finite budget.

    Every one is traced; the worst of each clean input is run on the deployed path, where what is
    counted must be what was traced.

    Args:
        victim: one whose work is known and not randomised.
        inputs: clean ones.
        threat: one with a list: tokens added at one end, or swapped.
        most: inputs that may be run in all.

    Raises:
        NotApplicable: where nobody lists the budget, or with its size where it is too large.
        AuditError: if a worst input takes other work than its trace declares.
    """
    started = time.perf_counter()
    threat = threat.on(victim.domain)
    domain = victim.domain
    clean = domain.snap(domain.place(inputs, victim.device))
    counts = [threat.members(single) for single in domain.singles(clean)]
    if None in counts:
        raise NotApplicable(
            f"{threat} has no list of its {domain.nouns}; what there is: "
            f"{covered(but='enumeration')}"
        )
    total = sum(count for count in counts if count is not None)
    if total > most:
        raise NotApplicable(
            f"{threat} admits {total:,} {domain.nouns} around these {len(clean)}, and at most "
            f"{most:,} are run: take fewer, a smaller budget, or most={total}"
        )
    with undisturbed(victim):
        before = spent(victim, clean)
        worst = torch.stack([_worst(victim, one, threat) for one in domain.singles(clean)])
        ceiling = ceiling_of(victim, clean, threat)
    return Certificate(
        kind="enumeration",
        victim=victim.name,
        threat=str(threat),
        currency=victim.currency,
        clean=before,
        most=worst,
        ceiling=ceiling,
        error=0.0,
        known=torch.ones_like(before, dtype=torch.bool),
        seconds=time.perf_counter() - started,
        passes=total / len(clean) + 2,
        note=f"all {total:,} {domain.nouns} of the budget were run: the worst case, attained",
    )


def _worst(victim: Victim, single: Batch, threat: Threat) -> Tensor:
    """() float64: the most work around one clean input, as executed."""
    most, where = spent(victim, single)[0], single
    for batch in threat.every(single, AT_ONCE):
        works = spent(victim, batch)
        if works.max() > most:
            most, where = works.max(), batch[int(works.argmax())][None]
    found = audit(victim, where)
    done = found.macs if victim.currency == "macs" else found.counts[victim.currency]
    return torch.maximum(most, done[0])
