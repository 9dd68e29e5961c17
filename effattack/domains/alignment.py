"""How two rows of tokens differ, and what of one is left in the other."""

from __future__ import annotations

import torch
from torch import Tensor


def edits(after: Tensor, before: Tensor) -> int:
    """The fewest insertions, deletions and substitutions between two rows (Levenshtein 1966)."""
    first, last = _ends(after, before)
    after, before = after[first : len(after) - last], before[first : len(before) - last]
    steps = torch.arange(len(before) + 1)
    fewest = steps
    for count, word in enumerate(after, 1):
        changed = torch.minimum(fewest[:-1] + (before != word), fewest[1:] + 1)
        fewest = torch.cat([torch.tensor([count]), changed])
        fewest = (fewest - steps).cummin(0).values + steps
    return int(fewest[-1])


def aligned(after: Tensor, before: Tensor) -> Tensor:
    """Where each token of ``before`` stands in ``after``, -1 where it does not.

    Rows of one length are compared place by place; of others, what stands before the first and
    behind the last change is kept.
    """
    places = torch.arange(len(before))
    if len(after) == len(before):
        return torch.where(after == before, places, -1)
    first, last = _ends(after, before)
    if _common(after.flip(0), before.flip(0)) == len(before) != first:
        first, last = 0, len(before)
    found = torch.where(places < first, places, -1)
    return torch.where(places >= len(before) - last, places + len(after) - len(before), found)


def _ends(after: Tensor, before: Tensor) -> tuple[int, int]:
    """How many tokens two rows share at the front, and behind those at the end."""
    first = _common(after, before)
    return first, _common(after[first:].flip(0), before[first:].flip(0))


def _common(one: Tensor, other: Tensor) -> int:
    """How many tokens two rows share at the front."""
    shorter = min(len(one), len(other))
    return int((one[:shorter] == other[:shorter]).long().cumprod(0).sum())
