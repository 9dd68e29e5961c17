"""The MACs counter sees all the work."""

from __future__ import annotations

from torch import Tensor

from effattack.counting.origins import examine
from effattack.counting.sight import Known
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed

EXAMINED = 2
"""Images that are run anew, beside a neighbour of each."""


def check_seen(victim: Victim, images: Tensor) -> list[str]:
    """Invariant 3: nothing that the counter cannot see decides the logits.

    Runs ``forward`` on images and on neighbours of theirs, and compares every value that comes from
    outside its sight: constants are equal on both.

    Raises:
        UnseenWork: a ContractError, naming where such a value depends on the input.
    """
    with undisturbed(victim):
        for image in images[:EXAMINED].split(1):
            examine(victim.name, victim, image, Known())
    return []
