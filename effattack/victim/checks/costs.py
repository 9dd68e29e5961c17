"""The work declared is the work done, and no more than the victim admits."""

from __future__ import annotations

from torch import Tensor

from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.victim import Victim, audit
from effattack.victim.checks.blame import first_of
from effattack.victim.undisturbed import undisturbed


def check_macs(victim: Victim, batch: Batch) -> list[str]:
    """Invariants 3 and 5: the work declared is the work done, and no input exceeds its ceiling.

    MACs lie within (0, max], and constant ones rest; counts are what was told.

    Raises:
        AuditError: a ContractError, from :func:`effattack.audit`.
    """
    with undisturbed(victim):
        found = audit(victim, batch)
        ceilings = {name: victim.ceiling(batch, name) for name in ("macs", *victim.counts)}
    macs = found.macs
    if victim.constant and (macs == macs[0]).all() and macs[0] != victim.max_macs:
        raise ContractError(
            f"{victim.name} is constant at {macs[0]:,.0f} MACs, but declares max_macs = "
            f"{victim.max_macs:,.0f}: they must be equal"
        )
    for index, spent in enumerate(macs.tolist()):
        expect_admitted(victim, spent, f"{victim.domain.noun} {index}")
    for name, ceiling in ceilings.items():
        _expect_below(victim, name, macs if name == "macs" else found.counts[name], ceiling)
    return []


def _expect_below(victim: Victim, name: str, spent: Tensor, ceiling: Tensor) -> None:
    """Refuse work above the ceiling of its own input, and ceilings above the worst case."""
    noun, most = victim.domain.noun, ceiling.cpu()
    if tuple(most.shape) != tuple(spent.shape):
        raise ContractError(
            f"{victim.name}: ceiling(batch, {name!r}) is {tuple(most.shape)}, expected "
            f"{tuple(spent.shape)}: give the most work of each {noun}"
        )
    if (over := spent > most).any():
        index = first_of(over)
        raise ContractError(
            f"{victim.name}: {noun} {index} took {spent[index]:,.0f} {name}, "
            f"{spent[index] - most[index]:,.0f} more than its ceiling: correct Victim.ceiling"
        )
    if name == "macs" and (most > victim.max_macs).any():
        raise ContractError(
            f"{victim.name}: {noun} {first_of(most > victim.max_macs)} has a ceiling of "
            f"{most.max():,.0f} MACs, above max_macs = {victim.max_macs:,.0f}: declare the worst "
            "case"
        )


def expect_admitted(victim: Victim, spent: float, what: str) -> None:
    """Refuse work that the victim says no input can cause.

    Raises:
        ContractError: naming the input, ``what`` it was, and by how much.
    """
    if spent > victim.max_macs:
        raise ContractError(
            f"{victim.name}: {what} executed {spent:,.0f} MACs, {spent - victim.max_macs:,.0f} "
            "more than max_macs: declare the worst case"
        )
    if victim.constant and spent != victim.max_macs:
        raise ContractError(
            f"{victim.name} is declared constant, but {what} executed {spent:,.0f} MACs of "
            f"{victim.max_macs:,.0f}: set constant=False and show the gates"
        )
