"""The MACs declared are the MACs executed."""

from __future__ import annotations

from torch import Tensor

from effattack.attacks.base import undisturbed
from effattack.errors import ContractError
from effattack.victim import Victim, audit


def check_macs(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 3: the MACs declared are the MACs executed, within (0, max]; constant ones rest.

    Raises:
        AuditError: a ContractError, from :func:`effattack.audit`.
    """
    with undisturbed(victim):
        macs = audit(victim, images).macs
    for index, spent in enumerate(macs.tolist()):
        if spent > victim.max_macs:
            raise ContractError(
                f"{victim.name}: image {index}: executed {spent:,.0f} MACs, "
                f"{spent - victim.max_macs:,.0f} more than max_macs: declare the worst case"
            )
        if victim.constant and spent != macs[0]:
            raise ContractError(
                f"{victim.name} is declared constant, but image {index} executed {spent:,.0f} "
                f"MACs and image 0 {macs[0]:,.0f}: set constant=False and show the gates"
            )
    if victim.constant and macs[0] != victim.max_macs:
        raise ContractError(
            f"{victim.name} is constant at {macs[0]:,.0f} MACs, but declares max_macs = "
            f"{victim.max_macs:,.0f}: they must be equal"
        )
    return []
