"""What gradients are taken in where inputs have none of their own: the words of a prompt.

Ids have no neighbours. Their embedding rows have: a victim of prompts gives those of the places
that may change (:meth:`effattack.Victim.lift`), and its ``trace`` reads them in place of the ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Leaf(NamedTuple):
    """Embedding rows of some places of each prompt."""

    rows: Tensor
    """(B, k, width), float: what stands there, before anything is added to it."""
    places: Tensor
    """(B, k): where; past the end of a prompt nothing is read."""


def word_gradients(
    lift: Callable[[Tensor, Tensor], Leaf], gradient: Tensor, words: Tensor, chunk: int = 4096
) -> Tensor:
    """The gradient of words in every place: gradient · embeddingᵀ.

    It is what the gradient of one-hot rows (B, k, vocabulary) would be, which of a real vocabulary
    fit in no memory; so this goes through the words in chunks.

    Args:
        lift: of the victim, which gives the embedding rows.
        gradient: (B, k, width) of a leaf's rows.
        words: (n,) ids, such as all that an attacker may write.
        chunk: words at once.

    Returns:
        (B, k, n).
    """
    found = []
    for ids in words.to(gradient.device).split(chunk):
        rows = lift(ids[:, None], torch.zeros_like(ids)[:, None]).rows[:, 0]
        found.append(gradient @ rows.detach().mT.to(gradient))
    return torch.cat(found, dim=2)
