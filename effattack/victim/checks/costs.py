"""The MACs declared are the MACs executed, and no more than the victim admits."""

from __future__ import annotations

from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.victim import Victim, audit
from effattack.victim.undisturbed import undisturbed


def check_macs(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 3: the MACs declared are the MACs executed, within (0, max]; constant ones rest.

    Raises:
        AuditError: a ContractError, from :func:`effattack.audit`.
    """
    with undisturbed(victim):
        macs = audit(victim, batch).macs
    if victim.constant and (macs == macs[0]).all() and macs[0] != victim.max_macs:
        raise ContractError(
            f"{victim.name} is constant at {macs[0]:,.0f} MACs, but declares max_macs = "
            f"{victim.max_macs:,.0f}: they must be equal"
        )
    for index, spent in enumerate(macs.tolist()):
        expect_admitted(victim, spent, f"{victim.domain.noun} {index}")
    return []


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
