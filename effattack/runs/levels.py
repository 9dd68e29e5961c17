"""How thoroughly a victim is scored; no torch, so that the pytest plugin can read it at start-up.

More images narrow the interval of a score, more attacks and seeds make it harder to flatter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from effattack.errors import NotApplicable, unknown_name

if TYPE_CHECKING:
    from effattack.victim import Victim


class Level(NamedTuple):
    """What one level scores."""

    samples: int
    """Images."""
    seeds: tuple[int, ...]
    """Of attacks and controls."""
    attacks: str
    """``"first"`` of the victim's default attacks, its ``"defaults"``, or ``"all"`` that apply.

    Universal ones, which learn from images that are not scored, are for the user to name."""


LEVELS = {
    "quick": Level(60, (0,), "first"),
    "standard": Level(200, (0,), "defaults"),
    "full": Level(1000, (0, 1, 2), "all"),
}


def level_of(name: str) -> Level:
    """The level of that name.

    Raises:
        UsageError: naming the levels there are.
    """
    if name not in LEVELS:
        raise unknown_name("level", name, LEVELS)
    return LEVELS[name]


def attacks_of(level: Level, victim: Victim) -> list[str]:
    """Names of the attacks that a level runs on a victim."""
    from effattack.attacks import defaults, names

    if level.attacks == "all":
        return [name for name in names() if _needs_no_more(name) and _applies(name, victim)]
    return defaults(victim)[: 1 if level.attacks == "first" else None]


def _needs_no_more(name: str) -> bool:
    from effattack.attacks import UniversalAttack, attack_class

    attack = attack_class(name)
    return attack.kind != "control" and not issubclass(attack, UniversalAttack)


def _applies(name: str, victim: Victim) -> bool:
    from effattack.attacks import build

    try:
        build(name, victim)
    except NotApplicable:
        return False
    return True
