"""What a victim's own cap certifies: nothing costs more than the ceiling of the threat.

A cap on tokens, boxes or stages is exact, and no statement on savings: a capped system that saves
nothing below its cap is certified just as well. So the factor is given, ceiling / clean, and
savings only against a victim without the cap, which is named.
"""

from __future__ import annotations

import time

import torch

from effattack.certify.certificate import Certificate
from effattack.certify.spending import ceiling_of, expect_ceiling, spent
from effattack.domains import Batch
from effattack.errors import UsageError
from effattack.threats import Threat
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed


def caps(
    victim: Victim, inputs: Batch, threat: Threat, *, uncapped: Victim | None = None
) -> Certificate:
    """The ceiling of a threat as a certificate; that no input exceeds it is audited on every row.

    Args:
        victim: one that declares the most that its inputs cost.
        inputs: clean ones.
        threat: what the attacker may change: how long an input may get, and so its ceiling.
        uncapped: the same victim without its cap, whose savings it protects.

    Raises:
        NotApplicable: for a victim whose ceiling is unknown.
        UsageError: for an uncapped victim of other inputs or another currency.
    """
    started = time.perf_counter()
    threat = threat.on(victim.domain)
    clean_inputs = victim.domain.snap(victim.domain.place(inputs, victim.device))
    with undisturbed(victim):
        clean = spent(victim, clean_inputs)
        most = ceiling_of(victim, clean_inputs, threat)
    expect_ceiling(victim, most)
    ceiling, against = torch.full_like(most, torch.nan), ""
    if uncapped is not None:
        if (uncapped.domain.shape, uncapped.currency) != (victim.domain.shape, victim.currency):
            raise UsageError(
                f"{uncapped.name} takes other inputs than {victim.name}, or is judged by another "
                "count: name the same victim without its cap"
            )
        ceiling = ceiling_of(uncapped, clean_inputs, threat)
        expect_ceiling(uncapped, ceiling)
        against = f"; savings are those against the ceiling of {uncapped.name}"
    return Certificate(
        kind="cap",
        victim=victim.name,
        threat=str(threat),
        currency=victim.currency,
        clean=clean,
        most=most,
        ceiling=ceiling,
        error=0.0,
        known=torch.ones_like(most, dtype=torch.bool),
        seconds=time.perf_counter() - started,
        passes=1,
        note=f"by the ceiling that {victim.name} declares{against}",
    )
