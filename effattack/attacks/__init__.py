"""Attacks by name: the same names in Python, in tables and on the command line.

A new attack is one new file and one line in ``_BUILT_IN``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from effattack.attacks.adapters import Foolbox, Torchattacks
from effattack.attacks.base import Attack
from effattack.attacks.controls import Clean, NearUniform, Noise
from effattack.attacks.deepsloth import DeepSloth
from effattack.attacks.desparsify import DeSparsify
from effattack.attacks.query import QueryAttack
from effattack.attacks.slowdown import Slowdown
from effattack.errors import unknown_name
from effattack.victim import Opaque, Victim

__all__ = [
    "Attack",
    "Clean",
    "DeSparsify",
    "DeepSloth",
    "Foolbox",
    "NearUniform",
    "Noise",
    "QueryAttack",
    "Slowdown",
    "Torchattacks",
    "attack_class",
    "build",
    "defaults",
    "names",
]

CONTROLS: dict[str, type[Attack]] = {"clean": Clean, "noise": Noise, "uniform": NearUniform}
_BUILT_IN: dict[str, type[Attack]] = {
    "Slowdown": Slowdown,
    "DeepSloth": DeepSloth,
    "DeSparsify": DeSparsify,
    "QueryAttack": QueryAttack,
}
_LIBRARIES: dict[str, type[Torchattacks] | type[Foolbox]] = {
    "torchattacks": Torchattacks,
    "foolbox": Foolbox,
}
_UNBUDGETED = (Clean, NearUniform)


def names() -> list[str]:
    """Names of the attacks that need nothing but a victim and a budget."""
    return [*CONTROLS, *_BUILT_IN, "torchattacks.PGD", "foolbox.LinfPGD"]


def defaults(victim: Victim) -> list[str]:
    """The attacks that a victim is scored under when the user names none.

    An opaque model has no gates for gradient attacks: it is queried. A library whose extra is not
    installed is left out, with a warning.
    """
    found = ["Slowdown", "DeepSloth", "DeSparsify"]
    if isinstance(victim, Opaque):
        found = ["QueryAttack"]
    if find_spec("torchattacks") is None:
        warnings.warn(
            "torchattacks is not installed, its PGD is left out: "
            "pip install 'effattack[torchattacks]'",
            stacklevel=2,
        )
        return [*found, "foolbox.LinfPGD"]
    return [*found, "torchattacks.PGD", "foolbox.LinfPGD"]


def attack_class(name: str) -> type[Attack]:
    """The class behind a name such as ``Slowdown``, ``noise`` or ``torchattacks.PGD``.

    Raises:
        UsageError: naming the nearest known attack.
    """
    library = name.partition(".")[0]
    known: dict[str, type[Attack]] = {**CONTROLS, **_BUILT_IN}
    if name in known:
        return known[name]
    if library in _LIBRARIES and "." in name:
        return _LIBRARIES[library]
    raise unknown_name("attack", name, names())


def build(name: str, victim: Victim, eps: float = 8 / 255, seed: int = 0) -> Attack:
    """The attack of that name with default settings.

    Raises:
        UsageError: for an unknown name or a budget that is none.
        NotApplicable: if the attack cannot apply to the victim.
    """
    cls = attack_class(name)
    options: dict[str, Any] = {} if cls in _UNBUDGETED else {"eps": eps}
    if cls in _LIBRARIES.values():
        options["attack"] = name.partition(".")[2]
    return cls(victim, seed=seed, **options)
