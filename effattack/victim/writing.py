"""What a victim that writes text shows beside its gates, for losses on what it might have written.

``Trace.logits`` of such a victim are the ids that were written, (B, cap), padded behind the last.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from effattack.victim.leaf import Leaf
from effattack.victim.trace import Trace

PROMPTS = "prompts"
"""In ``Trace.aux``: what the texts were written after, (B, L)."""
STEPS = "step_logits"
"""In ``Trace.aux`` where a leaf asks for gradients: (B, n, vocabulary), the logits that each token
was drawn from, of the n of the longest text; those of steps that did not happen without meaning."""
STATES = "step_states"
"""Beside them: (B, n, width), what the head made those logits of."""


@runtime_checkable
class Writes(Protocol):
    """A victim that can be asked what it would write after rows that are no words."""

    cap: int
    """Most tokens that are written."""
    vocabulary: int
    """Ids of what is written."""

    def continued(
        self, batch: Tensor, text: Tensor, leaf: Leaf | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits and states after prompts (B, L) and before each row of a text (B, n, width), and
        behind the last: (B, n + 1, vocabulary) and (B, n + 1, width); differentiable in the rows of
        the text and of the leaf."""

    def read_by(self, written: Tensor) -> Tensor:
        """Texts (B, cap) -> rows of all tokens that were read to write them, (B, n - 1, width)."""


def steps_of(trace: Trace, victim: Writes) -> tuple[Tensor, Tensor]:
    """Logits and states of all steps of a trace, (B, n, ...); without a leaf its texts are read
    once more, as they take too much room to be kept for those who do not ask."""
    if STEPS in trace.aux:
        return trace.aux[STEPS], trace.aux[STATES]
    return victim.continued(trace.aux[PROMPTS], victim.read_by(trace.logits))
