"""Budgets of one kind from the smallest to the largest, and one attack made for each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

from effattack.attacks.base import Attack
from effattack.attacks.naming import parse_name
from effattack.budgets import LEVELS
from effattack.errors import UsageError
from effattack.threats import L1, L2, Linf, Patch, Pixels, Threat
from effattack.victim import Victim

STEPS_OF_A_NORM = 64
"""Into which l2 and l1 budgets up to the largest are divided."""


def ladder(largest: Threat) -> list[Threat]:
    """All budgets of a kind that are told apart, from the smallest to the largest.

    Raises:
        UsageError: for a threat that has no size.
    """
    if isinstance(largest, Linf):
        return [Linf(level / LEVELS) for level in range(1, int(largest.eps * LEVELS + 1e-6) + 1)]
    if isinstance(largest, Patch):
        return [Patch(side, largest.place) for side in range(1, largest.size + 1)]
    if isinstance(largest, Pixels):
        return [Pixels(count) for count in range(1, largest.count + 1)]
    if isinstance(largest, L2 | L1):
        sizes = [largest.eps * part / STEPS_OF_A_NORM for part in range(1, STEPS_OF_A_NORM + 1)]
        return [_resized(largest, size) for size in sizes if size * LEVELS >= 1]
    raise UsageError(f"{largest} has no size: give linf, l2, l1, patch or pixels")


def maker(victim: Victim, text: str, seed: int) -> Callable[[Threat], Attack]:
    """How the attack of a name is made for one budget after the other.

    Raises:
        UsageError: for an unknown name or option, or an attack that fixes its own budget.
    """
    from effattack.attacks import attack_class, build  # here: they know this module's attack

    attack_class(text)
    _, options = parse_name(text)
    if "threat" in options:
        raise UsageError(f"{text} fixes its budget: leave the threat out, it is what is looked for")

    def make(threat: Threat) -> Attack:
        return build(text, victim, threat.eps if isinstance(threat, Linf) else threat, seed)

    return make


def _resized(ball: L2 | L1, eps: float) -> Threat:
    smaller = copy.copy(ball)
    smaller.eps = eps
    return smaller
