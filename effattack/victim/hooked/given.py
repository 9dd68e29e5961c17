"""What is given to Hooked: refused before anything runs, where it is of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from effattack.domains import Domain
from effattack.errors import UsageError
from effattack.victim.hooked.decision import Decision


def listed(decisions: Any) -> tuple[Decision, ...]:
    """The decisions, also where one is given alone.

    Raises:
        UsageError: for anything else.
    """
    one = isinstance(decisions, Decision)
    given = (decisions,) if one else decisions
    if not isinstance(given, list | tuple) or not all(isinstance(d, Decision) for d in given):
        raise UsageError(
            f"decisions = {decisions!r}: give a list, [effattack.Decision(name, tensor=..., "
            "rule=...)]"
        )
    return tuple(given)


def check_given(
    model: nn.Module, decisions: Sequence[Decision], domain: Domain, macs: object
) -> None:
    """Refuse a model, decisions, a domain or a function of MACs that Hooked cannot take.

    Raises:
        UsageError: saying what to give.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"Hooked needs a torch module, whose parts have names, not a {type(model).__name__}: "
            "wrap what has none as effattack.Opaque"
        )
    if not domain.smooth:
        raise UsageError(
            f"Hooked reads gradients in the {domain.noun} itself, and {domain.kind} have none: "
            "subclass effattack.Victim, whose trace takes a leaf"
        )
    if macs is not None and not callable(macs):
        raise UsageError(f"macs = {macs!r}: give a function, trace -> (B,) executed MACs")
    names = [decision.name for decision in decisions]
    if not names or len(set(names)) < len(names):
        raise UsageError(f"decisions {names}: give at least one, each with a name of its own")
    for decision in decisions:
        decision.check(model)
