"""Universal attacks in an evaluation: fitted on images that are not scored, when needed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

from torch import Tensor

from effattack.attacks import Attack, UniversalAttack
from effattack.attacks.objectives import Callback
from effattack.errors import UsageError

Fit = Callable[[], tuple[Tensor, Tensor] | None]
"""Gives images and labels to learn from, none of them scored; asked only where they are needed."""


def prepared(attack: Attack, fit: Fit) -> Attack:
    """The attack, if it is ready to be scored; an unfitted universal one with its images beside it.

    The images are in ``attack.to_fit`` of a copy, and learnt from by :func:`fitted` only when a
    cell is run: one that is read from a store needs no fit.

    Raises:
        UsageError: for an unfitted universal attack without images.
    """
    if not isinstance(attack, UniversalAttack) or attack.perturbation is not None:
        return attack
    if (given := fit()) is None:
        raise UsageError(
            f"{attack.name} is universal: give images to learn from, fit=(images, labels) "
            "(--fit-data on the command line), none of them scored; or call "
            "attack.fit(images, labels) first"
        )
    images, labels = given
    attack.victim.domain.check(images)
    attack.victim.task.check(labels, len(images))
    attack = copy.copy(attack)
    attack.to_fit = images, labels
    attack.fitted_on = frozenset(attack.victim.domain.fingerprints(images))
    return attack


def check_unseen(attacks: Iterable[Attack], scored: Tensor) -> None:
    """Refuse to score universal attacks on what they learn from.

    Raises:
        UsageError: naming the attack.
    """
    universal = [attack for attack in attacks if isinstance(attack, UniversalAttack)]
    for attack in universal:
        if both := attack.fitted_on.intersection(attack.victim.domain.fingerprints(scored)):
            raise UsageError(
                f"{attack.name}: {len(both)} of the scored images are also among those it is "
                "fitted on: score it on others, for it has learnt these"
            )


def fitted(attack: Attack, callback: Callback) -> Attack:
    """The attack itself, fitted now if it was not; the callback is told of each step."""
    if isinstance(attack, UniversalAttack) and attack.perturbation is None and attack.to_fit:
        attack.fit(*attack.to_fit, callback)
    return attack
