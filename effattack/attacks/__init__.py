"""Attacks: threat x objective x search. Each class loads when it is named, here or in a table.

``base`` says what all of them share, ``by_name`` finds them by name.
"""

from __future__ import annotations

from importlib import import_module

from effattack.attacks.by_name import BUILT_IN, attack_class, build, defaults, names

_HOME = {
    **BUILT_IN,
    "Attack": "base",
    "Clean": "controls",
    "Corruption": "corruptions",
    "Foolbox": "foreign.from_foolbox",
    "NearUniform": "controls",
    "Noise": "controls",
    "Torchattacks": "foreign.from_torchattacks",
    "UniversalAttack": "universal",
    "eps50": "smallest.half_budget",
}
__all__ = [*_HOME, "attack_class", "build", "defaults", "names"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"effattack.attacks.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
