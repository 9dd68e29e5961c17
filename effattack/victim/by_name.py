"""Victims by name."""

from __future__ import annotations

from effattack.errors import UsageError
from effattack.registry import VICTIMS, call, named
from effattack.victim.contract import Victim


def load_victim(name: str) -> Victim:
    """The victim of a registered name, or what the factory at ``package.module:factory`` returns.

    Raises:
        UsageError: if the name is unknown, the path does not import, or no Victim comes back.
    """
    victim = call(named(VICTIMS, name), name)
    if not isinstance(victim, Victim):
        raise UsageError(
            f"{name} returned {type(victim).__name__}, not an effattack.Victim: wrap a model that "
            "cannot be opened as effattack.Opaque(model, input_shape), or use one of the wrappers "
            "in effattack.models_zoo"
        )
    return victim
