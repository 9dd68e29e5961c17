"""What gradients are taken in where inputs have none of their own: the words of a prompt.

Ids have no neighbours. Their embedding rows have: a victim of prompts gives those of the places
that may change (:meth:`effattack.Victim.lift`), and its ``trace`` reads them in place of the ids.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Leaf(NamedTuple):
    """Embedding rows of some places of each prompt."""

    rows: Tensor
    """(B, k, width), float: what stands there, before anything is added to it."""
    places: Tensor
    """(B, k): where; past the end of a prompt nothing is read."""


class Lifting(Protocol):
    """A victim of prompts whose words can be lifted."""

    domain: Any

    def lift(self, batch: Any, places: Tensor) -> Leaf: ...


def word_gradients(victim: Lifting, gradient: Tensor, chunk: int = 4096) -> Tensor:
    """The gradient of every word in every place: gradient · embeddingᵀ.

    It is what the gradient of one-hot rows (B, k, vocabulary) would be, which for a real vocabulary
    fit in no memory; so this goes through the vocabulary in chunks.

    Args:
        victim: whose domain has the vocabulary, and whose ``lift`` its embedding rows.
        gradient: (B, k, width) of a leaf's rows.
        chunk: words at once.

    Returns:
        (B, k, vocabulary).
    """
    found = []
    for words in torch.arange(victim.domain.vocabulary, device=gradient.device).split(chunk):
        rows = victim.lift(words[:, None], torch.zeros_like(words)[:, None]).rows[:, 0]
        found.append(gradient @ rows.detach().mT.to(gradient))
    return torch.cat(found, dim=2)
