"""Budgets of one kind from the smallest to the largest, and one attack made for each of them."""

from __future__ import annotations

from collections.abc import Callable

from effattack.attacks.base import Attack
from effattack.errors import UsageError
from effattack.registry import read_name
from effattack.threats import L0, Linf, Threat
from effattack.threats.balls import Ball
from effattack.threats.sparse import Region
from effattack.victim import Victim

STEPS_OF_A_NORM = 64
"""Into which the radius of a ball is divided that goes in no steps of a grid."""


def ladder(largest: Threat) -> list[Threat]:
    """All budgets of a kind that are told apart, from the smallest to the largest.

    Raises:
        UsageError: for a threat that has no size.
    """
    if isinstance(largest, Linf) and largest.domain.step is not None and not largest.unit:
        per_unit = largest.per_unit
        return [
            largest.resized(level / per_unit)
            for level in range(1, int(largest.eps * per_unit + 1e-6) + 1)
        ]
    if isinstance(largest, Region):
        return [type(largest)(side, largest.place) for side in range(1, largest.size + 1)]
    if isinstance(largest, L0):
        return [L0(count) for count in range(1, largest.count + 1)]
    if isinstance(largest, Ball):
        sizes = [largest.eps * part / STEPS_OF_A_NORM for part in range(1, STEPS_OF_A_NORM + 1)]
        return [ball for size in sizes if (ball := largest.resized(size)).moves]
    raise UsageError(f"{largest} has no size: give a ball, a patch, a window or pixels")


def maker(victim: Victim, text: str, seed: int) -> Callable[[Threat], Attack]:
    """How the attack of a name is made for one budget after the other.

    Raises:
        UsageError: for an unknown name or option, or an attack that fixes its own budget.
    """
    from effattack.attacks import attack_class, build  # here: they know this module's attack

    attack_class(text)
    _, options = read_name(text)
    if "threat" in options:
        raise UsageError(f"{text} fixes its budget: leave the threat out, it is what is looked for")

    def make(threat: Threat) -> Attack:
        return build(text, victim, threat, seed)

    return make
