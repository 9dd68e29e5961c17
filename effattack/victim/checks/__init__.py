"""The contract as checks: the invariants that every number of effattack rests on.

Each check takes a victim and a few images, raises :class:`~effattack.errors.ContractError` where
the contract is broken (with the gate, the image, by how much, and the remedy), and returns what is
lawful but limits an attack, as sentences. The victim is checked in eval mode and left as it was.

    for check in INVARIANTS:
        check(victim, images)
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from effattack.victim import Victim
from effattack.victim.checks.agreement import check_batch_independence, check_paths_agree
from effattack.victim.checks.blame import beside_noise
from effattack.victim.checks.caps import check_caps
from effattack.victim.checks.costs import check_macs
from effattack.victim.checks.declared import check_declared
from effattack.victim.checks.gates import check_gates
from effattack.victim.checks.gradients import check_gradients
from effattack.victim.checks.mates import check_mates
from effattack.victim.checks.proxies import misleading_proxies
from effattack.victim.checks.seen import check_seen

Check = Callable[[Victim, Tensor], list[str]]

INVARIANTS: tuple[Check, ...] = (
    check_declared,
    check_gates,
    check_paths_agree,
    check_batch_independence,
    check_seen,
    check_macs,
    check_caps,
    check_gradients,
)
"""All of them, cheapest first. A victim that passes can be measured."""

ARTEFACT: tuple[Check, ...] = (check_mates, check_caps)
"""What is asked of an artefact itself; the two paths are its twin's."""


def held_to(victim: Victim) -> list[tuple[Check, Victim]]:
    """What a victim is held to, and on whom each check is made.

    The invariants are about two paths: of an artefact, those of its twin, if it has one; beside
    them stands what is asked of the artefact itself.
    """
    paths = victim.checked
    own = () if paths is victim else ARTEFACT
    held = [(check, paths) for check in INVARIANTS if paths is not None]
    return held + [(check, victim) for check in own]


__all__ = [
    "ARTEFACT",
    "INVARIANTS",
    "Check",
    "beside_noise",
    "check_batch_independence",
    "check_caps",
    "check_declared",
    "check_gates",
    "check_gradients",
    "check_macs",
    "check_mates",
    "check_paths_agree",
    "check_seen",
    "held_to",
    "misleading_proxies",
]
