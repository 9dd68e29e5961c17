"""Work that is no MAC: told by the deployed code that does it, and collected while it is audited.

Passes of a generator, boxes into non-maximum suppression, pairs that are compared: no operator says
how many there were, so the line that does the work says it::

    for token in range(self.task.cap):
        logits = self.model(ids)
        effattack.tally("passes")

A victim declares such a count by name (``Victim.counts``), and ``trace().also`` holds it in closed
form; :func:`effattack.audit` compares the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from effattack.counting.outside import counting_here


class Count(NamedTuple):
    """Work that a victim tells beside its MACs."""

    unit: str
    """What one of it is called: ``"pass"``, ``"output token"``, ``"pair"``."""
    ceiling: Callable[[Any], Tensor]
    """(B,): the most of it that inputs of this size can cause; NaN where that is unknown."""
    audited: bool = True
    """Whether the deployed code tells it by :func:`tally`; else it is the victim's word alone,
    shown as such, and nothing is judged by it."""


def every(number: float, inputs: Any) -> Tensor:
    """(B,) float64: one number for each of some inputs; with ``partial``, a ceiling of all."""
    return torch.full((len(inputs),), float(number), dtype=torch.float64, device=inputs.device)


def tally(name: str, n: float | Tensor = 1) -> None:
    """Tell that so much work of a name is done, where it is done; free while nobody counts.

    Args:
        name: of the count, as in ``Victim.counts``.
        n: how much; of a tensor, the sum.
    """
    for counting in counting_here():
        if isinstance(n, Tensor):
            with _disable_current_modes():  # reading a tally is no work of the victim
                n = n.detach().double().sum().item()
        counting.tallied(name, n)
