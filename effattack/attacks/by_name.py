"""Attacks by name: the same names in Python, in tables and on the command line.

A new attack is one new file and one line in ``BUILT_IN``. Nothing is imported before it is named.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from effattack.attacks.base import Attack
from effattack.attacks.naming import check_options, parse_name
from effattack.errors import EffattackError, UsageError, install, unknown_name
from effattack.threats import Threat
from effattack.victim import Victim

CONTROLS = {
    "clean": ("controls", "Clean"),
    "noise": ("controls", "Noise"),
    "uniform": ("controls", "NearUniform"),
    "corruption": ("corruptions", "Corruption"),
}
"""Name -> module below ``effattack.attacks``, and class."""
BUILT_IN = {
    "Slowdown": "house.slowdown",
    "UniversalSlowdown": "house.slowdown",
    "CascadeAttack": "published.cascade",
    "DeepSloth": "published.deepsloth",
    "UniversalDeepSloth": "published.deepsloth",
    "DeSparsify": "published.desparsify",
    "UniversalDeSparsify": "published.desparsify",
    "SlowFormer": "published.slowformer",
    "QuantAttack": "published.quantattack",
    "UniversalQuantAttack": "published.quantattack",
    "GradAuto": "published.gradauto",
    "GradMDM": "published.gradmdm",
    "ILFO": "published.ilfo",
    "Sponge": "published.sponge",
    "EvolvedSponge": "published.sponge",
    "QueryAttack": "house.query",
    "PGDAvg": "published.exits_pgd",
    "PGDMax": "published.exits_pgd",
    "Transfer": "house.transfer",
    "SlowAndWrong": "house.joint",
    "AutoSlow": "house.auto",
    "LatencyQuery": "house.latency_query",
    "MinimalBudget": "smallest.minimal",
}
"""Class -> module below ``effattack.attacks``."""
_LIBRARIES = {
    "torchattacks": ("foreign.from_torchattacks", "Torchattacks"),
    "foolbox": ("foreign.from_foolbox", "Foolbox"),
}
_UNBUDGETED = ("Clean", "NearUniform", "Corruption", "SlowFormer")


def names() -> list[str]:
    """Names of the attacks that need nothing but a victim and a budget."""
    return [*CONTROLS, *BUILT_IN, "torchattacks.PGD", "foolbox.LinfPGD"]


def defaults(victim: Victim) -> list[str]:
    """The attacks that a victim is scored under when the user names none.

    An opaque model has no gates for gradient attacks: it is queried. A library whose extra is not
    installed is left out, with a warning.
    """
    found = ["Slowdown", "DeepSloth", "DeSparsify"]
    if victim.sees == "answers":
        found = ["QueryAttack"]
    if find_spec("torchattacks") is None:
        warnings.warn(
            f"torchattacks is not installed, its PGD is left out: {install('torchattacks')}",
            stacklevel=2,
        )
        return [*found, "foolbox.LinfPGD"]
    return [*found, "torchattacks.PGD", "foolbox.LinfPGD"]


def attack_class(text: str) -> type[Attack]:
    """The class behind a name such as ``Slowdown``, ``noise`` or ``torchattacks.PGD(steps=20)``.

    Raises:
        UsageError: naming the nearest known attack, or the options of this one.
    """
    name, options = parse_name(text)
    library = name.partition(".")[0]
    known = {**CONTROLS, **{cls: (module, cls) for cls, module in BUILT_IN.items()}}
    if library in _LIBRARIES and "." in name:
        return _at(*_LIBRARIES[library])
    if name not in known:
        raise unknown_name("attack", name, names())
    found = _at(*known[name])
    check_options(found, name, options)
    return found


def _at(module: str, name: str) -> type[Attack]:
    return getattr(import_module(f"effattack.attacks.{module}"), name)


def build(text: str, victim: Victim, eps: float | Threat = 8 / 255, seed: int = 0) -> Attack:
    """The attack of that name: ``Slowdown``, ``DeepSloth(steps=200)``,
    ``Slowdown(threat='l2:1.0')``.

    Args:
        text: a name, with options if any differ from their default.
        victim: to be attacked.
        eps: l-inf budget or other threat, where the text names none.
        seed: of the attack.

    Raises:
        UsageError: for an unknown name or option, or a budget that is none.
        NotApplicable: if the attack cannot apply to the victim.
    """
    cls, (name, options) = attack_class(text), parse_name(text)
    usual: dict[str, Any] = {}
    if cls.__name__ not in _UNBUDGETED and "threat" not in options:
        usual["threat" if isinstance(eps, Threat) else "eps"] = eps
    if cls.__name__ in ("Torchattacks", "Foolbox"):
        usual["attack"] = name.partition(".")[2]
    try:
        return cls(victim, seed=seed, **usual, **options)
    except EffattackError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise UsageError(f"{text} cannot be made: {error}: correct its options") from error
