"""Attacks: threat x objective x search. Each class loads when it is named, here or in a table.

``base`` says what all of them share, ``by_name`` finds them by name.
"""

from __future__ import annotations

from importlib import import_module

from effattack.attacks import by_name
from effattack.attacks.by_name import attack_class, build, defaults, names, text_of

_PLACES = [
    *by_name.CONTROLS.values(),
    *by_name.BUILT_IN.values(),
    *by_name.LIBRARIES.values(),
    "base:Attack",
    "universal:UniversalAttack",
    "smallest.half_budget:eps50",
]
_HOME = {name: module for module, _, name in (place.partition(":") for place in _PLACES)}
__all__ = [*_HOME, "attack_class", "build", "defaults", "names", "text_of"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"effattack.attacks.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
