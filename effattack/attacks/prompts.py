"""Plain texts inside the budget: what anybody could write who knows nothing of the victim.

Their prompts are as long as those of an attack, so what an attack adds over them is no matter of
length.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor

from effattack.attacks.base import Attack, Kind
from effattack.attacks.objectives import Goal
from effattack.domains.tokens import lengths
from effattack.threats.edits import Edits
from effattack.victim import Victim


class PlainText(Attack):
    """Words of a text, written into all places that the budget leaves to a prompt.

    Places are those behind the prompt, or before it; of swaps, some are drawn. A change that the
    victim's tokenizer would read otherwise is left out: that prompt stays clean.
    """

    kind: ClassVar[Kind] = "control"
    knowledge = "nothing"
    takes = "tokens"
    threat: Edits

    def run(self, clean: Tensor, goal: Goal, generator: Generator) -> Tensor:
        threat, found = self.threat, clean
        for slots in chosen_slots(threat, clean, generator).T:
            found = threat.put(found, clean, slots, self.words(clean, slots), generator)
        return threat.on_grid(found, clean)

    @abstractmethod
    def words(self, clean: Tensor, slots: Tensor) -> Tensor:
        """(B,) ids for one of the places of each prompt, (B,), counted as the threat counts them:
        added words from the first one on, those of a prompt by where they stand."""


class Repetition(PlainText):
    """The last word of the prompt again, in every place that may change.

    Args:
        victim: any victim of prompts.
        threat: what may be changed.
        seed: of the places of swaps.
    """

    label = "repetition"

    def words(self, clean: Tensor, slots: Tensor) -> Tensor:
        return clean.gather(1, lengths(clean)[:, None] - 1)[:, 0]


class Benign(PlainText):
    """Benign words: those of the next clean prompt, as many as the budget has places.

    Behind a prompt stand the first words of the next one; swapped places get what stands in its
    place there. The last prompt takes those of the first, and one that is alone its own.

    Args:
        victim: any victim of prompts.
        threat: what may be changed.
        seed: of the places of swaps.
    """

    label = "benign"

    def words(self, clean: Tensor, slots: Tensor) -> Tensor:
        other = clean.roll(-1, 0)
        return other.gather(1, (slots % lengths(other))[:, None])[:, 0]


class LongList(PlainText):
    """A plain request for long work, ``Victim.long_request``, cut to the budget.

    Behind a prompt stand its first words; swapped places get what stands in its place there. What
    is shorter than the budget begins again.

    Args:
        victim: one of prompts, with a tokenizer, that names a request.
        threat: what may be changed.
        seed: of the places of swaps.

    Raises:
        NotApplicable: for a victim without a tokenizer, or one that names no request.
    """

    label = "long_list"

    @classmethod
    def why_not(cls, victim: Victim) -> str | None:
        if getattr(victim.domain, "tokenizer", None) is None:
            return f"{victim.name} has no tokenizer: nobody asks it in words"
        if not victim.long_request:
            return (
                f"{victim.name} names no request for long work (victim.long_request = 'list all "
                "numbers from one to ten thousand')"
            )
        return None

    def words(self, clean: Tensor, slots: Tensor) -> Tensor:
        tokenizer = self.threat.domain.tokenizer
        assert tokenizer is not None
        request = torch.tensor(tokenizer.encode(self.victim.long_request)).to(clean)
        return request[slots % len(request)]


def chosen_slots(threat: Edits, clean: Tensor, generator: Generator) -> Tensor:
    """(B, count): as many places as the budget has, each once, in order; all that may be written,
    where those are no more."""
    free = threat.writable(clean)
    drawn = torch.rand(free.shape, generator=generator).to(clean.device)
    count = min(int(threat.eps), free.shape[1])
    chosen = drawn.masked_fill(~free, -1.0).topk(count, dim=1).indices
    return chosen.sort(1).values
