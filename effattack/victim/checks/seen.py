"""The MACs counter sees all the work."""

from __future__ import annotations

from effattack.counting.origins import examine
from effattack.counting.sight import Known
from effattack.domains import Batch
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed

EXAMINED = 2
"""Inputs that are run anew, beside a neighbour of each."""


def check_seen(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 3: nothing that the counter cannot see decides the logits.

    Runs ``forward`` on inputs and on neighbours of theirs, and compares every value that comes from
    outside its sight: constants are equal on both.

    Raises:
        UnseenWork: a ContractError, naming where such a value depends on the input.
    """
    with undisturbed(victim):
        for single in victim.domain.singles(batch[:EXAMINED]):
            examine(victim.name, victim, single, Known(), victim.domain)
    return []
