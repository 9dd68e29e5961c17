"""A cap that a victim declares is one that stops it."""

from __future__ import annotations

import torch

from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.victim import Victim
from effattack.victim.checks.costs import check_macs
from effattack.victim.undisturbed import undisturbed

LONG = 2
"""Inputs that are made as long as they can be."""


def check_caps(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 5: the cap of a task (of tokens written, of boxes) holds on the longest inputs.

    They are those of the batch, repeated up to what the domain admits. Neither may an answer be
    longer than the cap, nor the work behind it more than the ceiling.

    Raises:
        ContractError: naming the input, and how long its answer is.
    """
    cap = getattr(victim.task, "cap", None)
    if cap is None:
        return []
    long, noun = victim.domain.stretched(batch[:LONG]), victim.domain.noun
    with undisturbed(victim), torch.no_grad():
        sizes = [victim(single).shape[1] for single in victim.domain.singles(long)]
    for index, size in enumerate(sizes):
        if size > cap:
            raise ContractError(
                f"{victim.name}: {noun} {index}, as long as it can be, is answered with {size} "
                f"rows, and its task declares a cap of {cap}: stop there, or declare where the "
                "deployment stops"
            )
    return check_macs(victim, long)
