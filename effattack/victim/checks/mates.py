"""An artefact does with an input what it does with it alone, whatever stands beside it."""

from __future__ import annotations

from torch import Tensor

from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.victim import Victim
from effattack.victim.checks.blame import DECLARE_COUPLED, first_of
from effattack.victim.undisturbed import undisturbed

MOST = 1 / 8
"""Share of inputs that rounding may explain: kernels for other batch sizes add in other orders."""


def check_mates(victim: Victim, batch: Batch) -> list[str]:
    """Invariant 2 of an artefact: an input alone has the answer and the work it has in a batch.

    Skipped for those that say they are batch-coupled.

    Returns:
        a sentence where few inputs have others, as those near a threshold may.

    Raises:
        ContractError: where more than one in eight have.
    """
    if victim.batch_coupled:
        return []
    with undisturbed(victim):
        together = victim.queried.trace(batch)
        singles = [victim.queried.trace(single) for single in victim.domain.singles(batch)]
    task = victim.task
    alone = task.answer(task.join([each.logits for each in singles]))
    apart = ~task.agree(alone, task.answer(together.logits))
    if victim.counted:
        apart |= _work_differs(together.macs, [each.macs for each in singles])
    if not apart.any():
        return []
    told = (
        f"{victim.name}: {int(apart.sum())} of {len(batch)} {victim.domain.nouns} have another "
        f"answer or other work in a batch than alone, such as number {first_of(apart)}"
    )
    if apart.double().mean() > MOST:
        raise ContractError(f"{told}: run them one by one, or {DECLARE_COUPLED}")
    return [told]


def _work_differs(together: Tensor, alone: list[Tensor]) -> Tensor:
    return together != together.new_tensor([each.item() for each in alone])
