"""Universal attacks in an evaluation: fitted on images that are not scored, when needed."""

from __future__ import annotations

import copy

from torch import Tensor

from effattack.attacks import Attack, UniversalAttack
from effattack.errors import UsageError
from effattack.images import check_images, check_labels, fingerprints


def prepared(attack: Attack, fit: tuple[Tensor, Tensor] | None, scored: Tensor) -> Attack:
    """The attack, if it is ready to be scored; an unfitted universal one with its images beside it.

    The images are in ``attack.to_fit`` of a copy, and learnt from by :func:`fitted` only when a
    cell is run: one that is read from a store needs no fit.

    Raises:
        UsageError: for an unfitted universal attack without images, and for images that are both
            fitted on and scored.
    """
    if not isinstance(attack, UniversalAttack):
        return attack
    seen = attack.fitted_on
    if attack.perturbation is None:
        if fit is None:
            raise UsageError(
                f"{attack.name} is universal: give images to learn from, fit=(images, labels) "
                "(--fit-data on the command line), none of them scored; or call "
                "attack.fit(images, labels) first"
            )
        check_images(fit[0], attack.victim.input_shape)
        check_labels(fit[1], len(fit[0]), attack.victim.num_classes)
        attack = copy.copy(attack)
        attack.to_fit = fit
        seen = frozenset(fingerprints(fit[0]))
    if both := seen.intersection(fingerprints(scored)):
        raise UsageError(
            f"{attack.name}: {len(both)} of the scored images are also among those it is fitted "
            "on: score it on others, for it has learnt these"
        )
    return attack


def fitted(attack: Attack) -> Attack:
    """The attack itself, fitted now if it was not."""
    if isinstance(attack, UniversalAttack) and attack.perturbation is None and attack.to_fit:
        attack.fit(*attack.to_fit)
    return attack
