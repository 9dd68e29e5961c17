"""How small a budget can be, of a victim."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effattack.attacks.base import as_threat
from effattack.attacks.smallest.ladder import ladder, maker
from effattack.attacks.smallest.minimal import check_savings
from effattack.threats import Threat
from effattack.victim import Victim
from effattack.victim.undisturbed import undisturbed


def eps50(
    victim: Victim,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    largest: Threat | str = "linf:32/255",
    attack: str = "Slowdown",
    share: float = 0.5,
    seed: int = 0,
) -> float:
    """The smallest budget at which an attack success of ``share`` is reached over all images.

    By bisection on the budgets of :class:`MinimalBudget`; in the unit of the threat, inf if the
    largest is not enough, 0 if the images save nothing.

    Args:
        victim: any victim that the attack applies to.
        images: a batch of its domain.
        labels: (B,) class indices; where missing, the clean predictions.
        largest: the largest budget, and what is bisected.
        attack: a name with options.
        share: of the savings of all images together.
        seed: of the attack.

    Raises:
        NotApplicable: if the attack cannot apply to the victim, or its max is unknown.
        UsageError: for a share outside (0, 1], a threat without a size, inputs that are none.
    """
    check_savings(victim, share)
    domain = victim.domain
    domain.check(images)
    images = domain.snap(domain.place(images, victim.device))
    steps = ladder(as_threat(largest).on(domain))
    make = maker(victim, attack, seed)

    def spent(adversarial: Tensor) -> float:
        with undisturbed(victim), torch.no_grad():
            return float(victim.spent(victim.trace(adversarial)).sum())

    clean, most = spent(images), float(victim.ceiling(images, victim.currency).sum())
    if clean >= most:
        return 0.0
    low, high = 0, len(steps) + 1
    probe = len(steps)
    while high - low > 1:
        reached = spent(make(steps[probe - 1])(images, labels)) >= clean + share * (most - clean)
        low, high = (low, probe) if reached else (probe, high)
        probe = (low + high) // 2
    return steps[high - 1].eps if high <= len(steps) else math.inf
