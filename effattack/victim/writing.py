"""What a victim that writes text shows beside its gates, for losses on what it might have written.

``Trace.logits`` of such a victim are the ids that were written, (B, cap), padded behind the last.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from effattack.victim.leaf import Leaf

STEPS = "step_logits"
"""In ``Trace.aux``: (B, cap, vocabulary), the logits that each token was drawn from, those of steps
that did not happen without meaning."""
STATES = "step_states"
"""In ``Trace.aux``: (B, cap, width), what the head made those logits of."""


@runtime_checkable
class Writer(Protocol):
    """A victim that can be asked what it would write after rows that are no words."""

    cap: int
    """Most tokens that are written."""

    def continued(
        self, batch: Tensor, text: Tensor, leaf: Leaf | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits and states after prompts (B, L) and before each row of a text (B, n, width), and
        behind the last: (B, n + 1, vocabulary) and (B, n + 1, width); differentiable in the rows of
        the text and of the leaf."""
