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

    Rows of one length are compared place by place; of others, as many tokens are kept as can be in
    order: those before the first and behind the last change, and between them a longest common
    subsequence.
    """
    if len(after) == len(before):
        return torch.where(after == before, torch.arange(len(before)), -1)
    first, last = _ends(after, before)
    if _common(after.flip(0), before.flip(0)) == len(before) != first:
        first, last = 0, len(before)
    inner = _in_order(after[first : len(after) - last], before[first : len(before) - last])
    behind = torch.arange(len(after) - last, len(after))
    return torch.cat([torch.arange(first), torch.where(inner < 0, -1, inner + first), behind])


def _in_order(after: Tensor, before: Tensor) -> Tensor:
    """The same by a longest common subsequence alone, without the tokens at both ends."""
    longest = [torch.zeros(len(before) + 1, dtype=torch.long)]
    for word in after:
        above = longest[-1]
        more = torch.maximum(above[1:], above[:-1] + (before == word)).cummax(0).values
        longest.append(torch.cat([above[:1], more]))
    found = torch.full((len(before),), -1)
    row, column = len(after), len(before)
    while row and column:
        if longest[row][column] == longest[row - 1][column]:
            row -= 1
        elif longest[row][column] == longest[row][column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            found[column] = row
    return found


def _ends(after: Tensor, before: Tensor) -> tuple[int, int]:
    """How many tokens two rows share at the front, and behind those at the end."""
    first = _common(after, before)
    return first, _common(after[first:].flip(0), before[first:].flip(0))


def _common(one: Tensor, other: Tensor) -> int:
    """How many tokens two rows share at the front."""
    shorter = min(len(one), len(other))
    return int((one[:shorter] == other[:shorter]).long().cumprod(0).sum())
