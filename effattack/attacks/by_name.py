"""Attacks by name: the same names in Python, in tables and on the command line.

A new attack here is one new file and one line in ``BUILT_IN``; one from elsewhere is an entry point
of the group ``effattack.attacks``, or ``package.module:Class``. Nothing is imported before it is
named.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from effattack.attacks.base import Attack
from effattack.attacks.naming import check_options, written
from effattack.errors import EffattackError, UsageError, install, unknown_name
from effattack.registry import entries, named, outside, read_name
from effattack.threats import Linf, Threat, usual_threat
from effattack.victim import Victim

GROUP = "effattack.attacks"
T = TypeVar("T")
CONTROLS = {
    "clean": "controls:Clean",
    "noise": "controls:Noise",
    "BestOfRandom": "controls:BestOfRandom",
    "uniform": "controls:NearUniform",
    "corruption": "corruptions:Corruption",
    "gaps": "disturbances:Gaps",
    "drift": "disturbances:Drift",
    "benign": "prompts:Benign",
    "repetition": "prompts:Repetition",
    "long_list": "prompts:LongList",
    "misspelling": "wordings:Misspelling",
    "word_order": "wordings:WordOrder",
}
"""Name -> module below ``effattack.attacks``, and class."""
USUAL_CONTROLS = {
    "pixels": ("uniform",),
    "series": ("gaps", "drift"),
    "tokens": ("benign", "repetition", "long_list"),
}
"""Kind of domain -> controls in every table that apply, beside the clean inputs and noise."""
SHIFTS = "shifts"
"""What stands for all natural shifts of a kind of inputs, wherever attacks are named."""
NATURAL = {
    "pixels": (
        "corruption",
        "corruption(kind='blur')",
        "corruption(kind='brightness')",
        "corruption(kind='jpeg')",
        "corruption(kind='style')",
        "corruption(kind='size')",
    ),
    "series": ("gaps", "drift"),
    "tokens": ("misspelling", "word_order"),
}
"""Kind of domain -> what happens to its inputs with no attacker: controls that search nothing."""
BUILT_IN = {
    "Slowdown": "house.slowdown:Slowdown",
    "UniversalSlowdown": "house.slowdown:UniversalSlowdown",
    "CascadeAttack": "published.cascade:CascadeAttack",
    "DeepSloth": "published.deepsloth:DeepSloth",
    "UniversalDeepSloth": "published.deepsloth:UniversalDeepSloth",
    "DeSparsify": "published.desparsify:DeSparsify",
    "UniversalDeSparsify": "published.desparsify:UniversalDeSparsify",
    "SlowFormer": "published.slowformer:SlowFormer",
    "QuantAttack": "published.quantattack:QuantAttack",
    "UniversalQuantAttack": "published.quantattack:UniversalQuantAttack",
    "GradAuto": "published.gradauto:GradAuto",
    "GradMDM": "published.gradmdm:GradMDM",
    "ILFO": "published.ilfo:ILFO",
    "Sponge": "published.sponge:Sponge",
    "EvolvedSponge": "published.sponge:EvolvedSponge",
    "QueryAttack": "house.query:QueryAttack",
    "SAME": "published.text_exits:SAME",
    "WAFFLE": "published.text_exits:WAFFLE",
    "OverThink": "published.overthink:OverThink",
    "OverthinkHGA": "published.overthink:OverthinkHGA",
    "NMTSloth": "published.generators:NMTSloth",
    "VerboseSamples": "published.generators:VerboseSamples",
    "VerboseImages": "published.verbose_images:VerboseImages",
    "LoopLLM": "published.generators:LoopLLM",
    "Engorgio": "published.engorgio:Engorgio",
    "SlothSpeech": "published.slothspeech:SlothSpeech",
    "Daedalus": "published.detectors:Daedalus",
    "PhantomSponges": "published.detectors:PhantomSponges",
    "UniversalPhantomSponges": "published.detectors:UniversalPhantomSponges",
    "Overload": "published.detectors:Overload",
    "SlowTrack": "published.detectors:SlowTrack",
    "PGDAvg": "published.exits_pgd:PGDAvg",
    "PGDMax": "published.exits_pgd:PGDMax",
    "Transfer": "house.transfer:Transfer",
    "SlowAndWrong": "house.joint:SlowAndWrong",
    "AutoSlow": "house.auto:AutoSlow",
    "LargeFile": "house.large_file:LargeFile",
    "LatencyQuery": "house.latency_query:LatencyQuery",
    "MinimalBudget": "smallest.minimal:MinimalBudget",
}
"""Name -> module below ``effattack.attacks``, and class."""
LIBRARIES = {
    "torchattacks": "foreign.from_torchattacks:Torchattacks",
    "foolbox": "foreign.from_foolbox:Foolbox",
}
"""What stands before the dot of ``torchattacks.PGD`` -> the adapter."""


OURS = {**CONTROLS, **BUILT_IN}
OF_LIBRARIES = ("torchattacks.PGD", "foolbox.LinfPGD")
"""The libraries' usual ones."""


def names() -> list[str]:
    """Names of the attacks that need nothing but a victim and a budget."""
    return [*OURS, *outside(GROUP, OURS), *OF_LIBRARIES]


def spelled_out(asked: Sequence[T], kinds: Iterable[str] = NATURAL) -> list[T | str]:
    """The same attacks, each once, ``shifts`` replaced by the natural shifts of kinds of inputs.

    Args:
        asked: names, or attacks.
        kinds: of domains.
    """
    shifts = [name for kind in kinds for name in NATURAL.get(kind, ())]
    named = [each for given in asked for each in (shifts if given == SHIFTS else [given])]
    return list(dict.fromkeys(named))


def defaults(victim: Victim) -> list[str]:
    """The attacks that a victim is scored under when the user names none.

    An opaque model has no gates for gradient attacks: it is queried, for its work where that is
    known, else for its time. A library whose extra is not
    installed is left out, with a warning.
    """
    queries = ["QueryAttack"] if victim.counted else []
    if victim.domain.kind == "tokens":
        return ["Slowdown", "SAME", "WAFFLE"] if victim.lifts else queries
    if victim.domain.kind == "graph":
        return ["Slowdown"] if victim.lifts else queries
    if victim.domain.kind == "parts":
        return queries if victim.sees == "answers" else ["Slowdown"]
    if not victim.domain.smooth:
        return []
    found = ["Slowdown", "DeepSloth", "DeSparsify"]
    if victim.sees == "answers":
        found = ["QueryAttack" if victim.counted else "LatencyQuery"]
    if find_spec("torchattacks") is None:
        warnings.warn(
            f"torchattacks is not installed, its PGD is left out: {install('torchattacks')}",
            stacklevel=2,
        )
        return [*found, "foolbox.LinfPGD"]
    return [*found, "torchattacks.PGD", "foolbox.LinfPGD"]


def attack_class(text: str) -> type[Attack]:
    """The class behind ``Slowdown``, ``torchattacks.PGD(steps=20)`` or ``mine.attacks:Mine``.

    Raises:
        UsageError: naming the nearest known attack, or the options of this one; if what stands at
            the path is no attack.
    """
    name, options = read_name(text)
    if library := _library(name):
        return _ours(LIBRARIES[library])
    if name in OURS:
        found = _ours(OURS[name])
    elif ":" in name or name in entries(GROUP):
        found = named(GROUP, name)
    else:
        raise unknown_name("attack", name, [*OURS, SHIFTS, *OF_LIBRARIES], outside(GROUP, OURS))
    if not (isinstance(found, type) and issubclass(found, Attack)):
        raise UsageError(f"{name} is {found!r}, no class of effattack.attacks.Attack: name one")
    check_options(found, name, options)
    return found


def build(text: str, victim: Victim, eps: float | Threat | None = None, seed: int = 0) -> Attack:
    """The attack of that name: ``Slowdown``, ``DeepSloth(steps=200)``,
    ``Slowdown(threat='l2:1.0')``, ``mine.attacks:Mine(steps=5)``.

    Args:
        text: a name, with options if any differ from their default.
        victim: to be attacked.
        eps: l-inf budget or other threat, where the text names none; by default the usual one of
            the victim's domain, of images 8/255.
        seed: of the attack.

    Raises:
        UsageError: for an unknown name or option, or a budget that is none.
        NotApplicable: if the attack cannot apply to the victim.
    """
    cls, (name, options) = attack_class(text), read_name(text)
    usual: dict[str, Any] = {}
    if cls.budgeted and "threat" not in options:
        usual["threat"] = threat_of(victim, eps)
    if library := _library(name):
        usual["attack"] = name.removeprefix(f"{library}.")
    try:
        return cls(victim, seed=seed, **usual, **options)
    except EffattackError:
        raise
    except (TypeError, ValueError) as error:
        if not options:
            raise
        raise UsageError(f"{text} cannot be made: {error}: correct its options") from error


def threat_of(victim: Victim, eps: float | Threat | None) -> Threat:
    """A threat as it is, a number as l-inf budget, and nothing as the usual threat of a domain."""
    if isinstance(eps, Threat):
        return eps
    return usual_threat(victim.domain) if eps is None else Linf(eps)


def text_of(attack: Attack) -> str:
    """What :func:`build` makes an attack from again, in any process; its seed stands apart."""
    cls = type(attack)
    ours = {path: name for name, path in OURS.items()}
    place = f"{cls.__module__.removeprefix('effattack.attacks.')}:{cls.__qualname__}"
    called = ours.get(place, f"{cls.__module__}:{cls.__qualname__}")
    if place in LIBRARIES.values():
        called = attack.label
    told = dict(attack.told)
    if not cls.fixed:
        told["threat"] = str(attack.threat)
    return f"{called}({written(told)})" if told else called


def usual_controls(victim: Victim, threat: Threat, seed: int) -> list[Attack]:
    """What every attack in a threat is compared with, beside the clean inputs."""
    usual = ("noise", *USUAL_CONTROLS.get(victim.domain.kind, ()))
    apply = [name for name in usual if attack_class(name).why_not(victim) is None]
    return [build(name, victim, threat, seed) for name in apply]


def _library(name: str) -> str | None:
    """The library of an attack, ``torchattacks`` of ``torchattacks.PGD``; None if it has none."""
    library, dot, _ = name.partition(".")
    return library if dot and library in LIBRARIES and ":" not in name else None


def _ours(place: str) -> Any:
    return named(GROUP, f"effattack.attacks.{place}")
