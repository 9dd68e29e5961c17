"""What is trained on, and what is held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from effattack.errors import UsageError
from effattack.victim import Victim

HELD_OUT = 0.2
"""Share of the inputs that chooses thresholds and judges, where none are given for it."""


class Data(NamedTuple):
    """Inputs and labels of both kinds."""

    inputs: Tensor
    """(B, ...), to train on."""
    labels: Tensor
    """(B,)."""
    groups: Tensor
    """(B,)."""
    held: tuple[Tensor, Tensor]
    """Held-out inputs and labels, on the victim's device."""
    notes: tuple[str, ...] = ()
    """What is to be said of them."""


def divided(
    victim: Victim,
    inputs: Tensor,
    labels: Tensor,
    groups: Tensor | None,
    heldout: tuple[Tensor, Tensor] | None,
    seed: int,
) -> Data:
    """Checked data; a fifth is held out, drawn by the seed, where nothing is given for it.

    Raises:
        UsageError: for inputs, labels or groups that cannot be used.
    """
    _check(victim, inputs, labels)
    groups = labels if groups is None else _checked_groups(groups, labels)
    if heldout is not None:
        _check(victim, *heldout)
        return Data(inputs, labels, groups, _placed(victim, *heldout))
    count = int(HELD_OUT * len(inputs))
    if count < 1:
        raise UsageError(
            f"{len(inputs)} inputs: give at least {round(1 / HELD_OUT)}, a fifth of which is held "
            "out, or heldout=(inputs, labels)"
        )
    order = torch.randperm(len(inputs), generator=Generator().manual_seed(seed))
    held, learn = order[:count], order[count:]
    note = (
        "held-out inputs are a fifth of those given: if the victim was trained on them, its "
        "figures before flatter it, and more seems lost than is; give heldout, --heldout of the "
        "command"
    )
    found = _placed(victim, inputs[held], labels[held])
    return Data(inputs[learn], labels[learn], groups[learn], found, (note,))


def _placed(victim: Victim, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return victim.domain.place(inputs, victim.device), labels.to(victim.device)


def _check(victim: Victim, inputs: Tensor, labels: Tensor) -> None:
    victim.domain.check(inputs)
    victim.task.check(labels, len(inputs))


def _checked_groups(groups: Tensor, labels: Tensor) -> Tensor:
    whole = isinstance(groups, Tensor) and groups.dtype in (torch.int64, torch.int32)
    if not whole or groups.shape != (len(labels),) or groups.min() < 0:
        raise UsageError(f"groups must be whole numbers from 0 on, one for each of {len(labels)}")
    return groups.long()
