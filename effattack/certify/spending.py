"""What a victim spends on inputs, as certificates and whoever checks them need it."""

from __future__ import annotations

import torch
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import NotApplicable
from effattack.results.unmeasured import GIVE_WORK, UNKNOWN_WORK
from effattack.threats import Threat
from effattack.victim import Victim

AT_ONCE = 256
"""Inputs of one batch."""


def spent(victim: Victim, batch: Batch) -> Tensor:
    """(B,) float64 on CPU: work on each input in the victim's currency; of an artefact, its own.

    One by one where mates or padding change it.

    Raises:
        NotApplicable: where its work is unknown.
    """
    seen = victim.queried
    alone = victim.batch_coupled or victim.pads
    parts = victim.domain.singles(batch) if alone else batch.split(AT_ONCE)
    with torch.no_grad():
        found = torch.cat([victim.spent(seen.trace(part)).double().cpu() for part in parts])
    if found.isnan().any():
        raise NotApplicable(f"{victim.name}: {UNKNOWN_WORK}, and nothing bounds it: {GIVE_WORK}")
    return found


def ceiling_of(victim: Victim, clean: Batch, threat: Threat) -> Tensor:
    """(B,) float64 on CPU: most work of any input that a threat admits; NaN where unknown."""
    return victim.ceiling(threat.largest(clean), victim.currency).double().cpu()


def expect_ceiling(victim: Victim, ceiling: Tensor) -> None:
    """Refuse a victim whose worst case is unknown.

    Raises:
        NotApplicable: with the remedy.
    """
    if not ceiling.isfinite().all():
        raise NotApplicable(
            f"{victim.name}: the most that its inputs can cost is unknown, and without it nothing "
            "can be bounded: give the victim max_macs"
        )
