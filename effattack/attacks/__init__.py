"""Attacks by name: the same names in Python, in tables and on the command line.

A new attack is one new file and one line in ``_BUILT_IN``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from effattack.attacks.base import Attack
from effattack.attacks.controls import Clean, NearUniform, Noise
from effattack.attacks.corruptions import Corruption
from effattack.attacks.foreign.from_foolbox import Foolbox
from effattack.attacks.foreign.from_torchattacks import Torchattacks
from effattack.attacks.house.auto import AutoSlow
from effattack.attacks.house.joint import SlowAndWrong
from effattack.attacks.house.latency_query import LatencyQuery
from effattack.attacks.house.query import QueryAttack
from effattack.attacks.house.slowdown import Slowdown, UniversalSlowdown
from effattack.attacks.house.transfer import Transfer
from effattack.attacks.naming import check_options, parse_name
from effattack.attacks.published.cascade import CascadeAttack
from effattack.attacks.published.deepsloth import DeepSloth, UniversalDeepSloth
from effattack.attacks.published.desparsify import DeSparsify, UniversalDeSparsify
from effattack.attacks.published.exits_pgd import PGDAvg, PGDMax
from effattack.attacks.published.gradauto import GradAuto
from effattack.attacks.published.gradmdm import GradMDM
from effattack.attacks.published.ilfo import ILFO
from effattack.attacks.published.quantattack import QuantAttack, UniversalQuantAttack
from effattack.attacks.published.slowformer import SlowFormer
from effattack.attacks.published.sponge import EvolvedSponge, Sponge
from effattack.attacks.smallest.half_budget import eps50
from effattack.attacks.smallest.minimal import MinimalBudget
from effattack.attacks.universal import UniversalAttack
from effattack.errors import EffattackError, UsageError, install, unknown_name
from effattack.threats import Threat
from effattack.victim import Opaque, Victim

__all__ = [
    "ILFO",
    "Attack",
    "CascadeAttack",
    "AutoSlow",
    "Clean",
    "Corruption",
    "DeSparsify",
    "DeepSloth",
    "EvolvedSponge",
    "Foolbox",
    "GradAuto",
    "GradMDM",
    "LatencyQuery",
    "MinimalBudget",
    "NearUniform",
    "Noise",
    "PGDAvg",
    "PGDMax",
    "QuantAttack",
    "QueryAttack",
    "SlowFormer",
    "SlowAndWrong",
    "Slowdown",
    "Sponge",
    "Torchattacks",
    "Transfer",
    "UniversalAttack",
    "UniversalDeSparsify",
    "UniversalQuantAttack",
    "UniversalDeepSloth",
    "UniversalSlowdown",
    "attack_class",
    "build",
    "defaults",
    "eps50",
    "names",
]

CONTROLS: dict[str, type[Attack]] = {
    "clean": Clean,
    "noise": Noise,
    "uniform": NearUniform,
    "corruption": Corruption,
}
_BUILT_IN: dict[str, type[Attack]] = {
    "Slowdown": Slowdown,
    "UniversalSlowdown": UniversalSlowdown,
    "CascadeAttack": CascadeAttack,
    "DeepSloth": DeepSloth,
    "UniversalDeepSloth": UniversalDeepSloth,
    "DeSparsify": DeSparsify,
    "UniversalDeSparsify": UniversalDeSparsify,
    "SlowFormer": SlowFormer,
    "QuantAttack": QuantAttack,
    "UniversalQuantAttack": UniversalQuantAttack,
    "GradAuto": GradAuto,
    "GradMDM": GradMDM,
    "ILFO": ILFO,
    "Sponge": Sponge,
    "EvolvedSponge": EvolvedSponge,
    "QueryAttack": QueryAttack,
    "PGDAvg": PGDAvg,
    "PGDMax": PGDMax,
    "Transfer": Transfer,
    "SlowAndWrong": SlowAndWrong,
    "AutoSlow": AutoSlow,
    "LatencyQuery": LatencyQuery,
    "MinimalBudget": MinimalBudget,
}
_LIBRARIES: dict[str, type[Torchattacks] | type[Foolbox]] = {
    "torchattacks": Torchattacks,
    "foolbox": Foolbox,
}
_UNBUDGETED = (Clean, NearUniform, Corruption, SlowFormer)


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
    known: dict[str, type[Attack]] = {**CONTROLS, **_BUILT_IN}
    if library in _LIBRARIES and "." in name:
        return _LIBRARIES[library]
    if name not in known:
        raise unknown_name("attack", name, names())
    check_options(known[name], name, options)
    return known[name]


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
    if cls not in _UNBUDGETED and "threat" not in options:
        usual["threat" if isinstance(eps, Threat) else "eps"] = eps
    if cls in _LIBRARIES.values():
        usual["attack"] = name.partition(".")[2]
    try:
        return cls(victim, seed=seed, **usual, **options)
    except EffattackError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise UsageError(f"{text} cannot be made: {error}: correct its options") from error
