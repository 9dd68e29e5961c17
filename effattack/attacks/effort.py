"""Equal effort on prompts: how many tokens an attack sends through the model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from effattack.attacks.searches.words import GRADIENT
from effattack.domains.tokens import lengths
from effattack.errors import NotApplicable
from effattack.victim import Trace, Victim
from effattack.victim.leaf import Leaf


@dataclass
class Effort:
    """What went through a metered victim so far."""

    prompts: int = 0
    """Prompts that were run, a gradient counting three."""
    tokens: int = 0
    """Tokens of those, read and written, likewise."""


def metered(victim: Victim) -> tuple[Victim, Effort]:
    """The same victim, and the effort of what is made for it from now on.

    ``victim, effort = metered(victim)``; ``build(name, victim, threat)(prompts)``; then
    ``BestOfRandom(draws=10**6, tokens=effort.tokens / len(prompts))`` is as much.

    Raises:
        NotApplicable: for a victim that reads no tokens.
    """
    if victim.domain.kind != "tokens":
        raise NotApplicable(
            f"{victim.name} takes {victim.domain.nouns}, not prompts: count gradients and queries"
        )
    effort = Effort()
    told = {"effort": effort, "__module__": type(victim).__module__}
    found = copy.copy(victim)
    found.__class__ = type(type(victim).__name__, (_Metered, type(victim)), told)
    return found, effort


def tokens_through(batch: Tensor, trace: Trace) -> Tensor:
    """(B,): tokens of prompts (B, L) that were read, and those that were written and read again.

    The template, the same around every prompt, is left out; so is the second reading of a text that
    :meth:`trace` does for its margins: the first one has had them.
    """
    written = trace.also.get("output_tokens", torch.ones_like(trace.macs))
    return lengths(batch) + written - 1


class _Metered:
    """Before the class of a victim: its traces are counted."""

    effort: Effort

    def trace(self, batch: Tensor, *args: Any, **leaf: Any) -> Trace:
        traced: Any = super()
        before = replace(self.effort)
        trace: Trace = traced.trace(batch, *args, **leaf)
        vars(self.effort).update(vars(before))
        times = GRADIENT if trace.gates and trace.gates[0].margin.requires_grad else 1
        self.effort.prompts += times * len(batch)
        self.effort.tokens += times * int(tokens_through(batch, trace).sum())
        return trace

    def continued(self, batch: Tensor, text: Tensor, leaf: Leaf | None = None) -> Any:
        """Rows that are no words are read for a gradient; a text that is read once more was counted
        when it was written."""
        if leaf is not None:
            self.effort.prompts += GRADIENT * len(batch)
            self.effort.tokens += GRADIENT * int((lengths(batch) + text.shape[1]).sum())
        read: Any = super()
        return read.continued(batch, text, leaf)
