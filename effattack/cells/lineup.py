"""The line-up: the controls and attacks that a victim is scored under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from effattack.attacks import Attack, Clean, NearUniform, Noise, build
from effattack.attacks.fitting import Fit, prepared
from effattack.errors import NotApplicable, UsageError
from effattack.threats import Linf
from effattack.victim import Victim
from effattack.victim.digests import attack_digest

Skipped = dict[str, str]
"""``victim``, ``attack``, and the ``reason`` why it will not be run."""


def lineup(
    victim: Victim,
    attacks: Sequence[Attack | str],
    budgets: Sequence[float],
    seeds: Sequence[int],
    fit: Fit,
) -> tuple[list[Attack], list[Skipped]]:
    """Controls and what was asked for in all budgets, each once; and what cannot apply.

    Args:
        victim, attacks, budgets, seeds: what to make.
        fit: gives the images and labels that unfitted universal attacks learn from.

    Raises:
        UsageError: for an attack made for another victim, or two that would share their rows.
    """
    ready: dict[str, Attack] = {}
    skipped: list[Skipped] = []
    for eps in budgets:
        asked, reasons = _asked(victim, attacks, eps, seeds)
        by_name = any(isinstance(given, str) for given in attacks)
        for attack in (*_controls(victim, asked, by_name, eps, seeds), *asked):
            ready.setdefault(attack_digest(attack), attack)
        skipped += [reason for reason in reasons if reason not in skipped]
    _check_distinct(ready.values())
    return [prepared(attack, fit) for attack in ready.values()], skipped


def _asked(
    victim: Victim, attacks: Sequence[Attack | str], eps: float, seeds: Sequence[int]
) -> tuple[list[Attack], list[Skipped]]:
    asked, skipped = [], []
    for given in attacks:
        if isinstance(given, str):
            try:
                asked += [build(given, victim, eps, seed) for seed in seeds]
            except NotApplicable as error:
                skipped.append({"victim": victim.name, "attack": given, "reason": str(error)})
        elif given.victim is not victim:
            raise UsageError(
                f"{given.name} was made for {given.victim.name}, not for {victim.name}: "
                "make it for the victim that is evaluated"
            )
        else:
            asked.append(given)
    return asked, skipped


def _controls(
    victim: Victim, asked: Sequence[Attack], by_name: bool, eps: float, seeds: Sequence[int]
) -> list[Attack]:
    """Those of the domain; noise in every budget, at ``eps`` if an attack was asked for by name."""
    rivals = [attack.threat for attack in asked if attack.kind != "control"]
    if by_name or not rivals:
        rivals.append(Linf(eps))
    threats = sorted({str(t): t for t in rivals}.values(), key=lambda t: (t.name, t.eps))
    controls: list[Attack] = [Clean(victim)]
    controls += [Noise(victim, threat=threat, seed=seed) for threat in threats for seed in seeds]
    return controls + [NearUniform(victim, seed=seed) for seed in seeds]


def _check_distinct(attacks: Iterable[Attack]) -> None:
    seen: dict[tuple[str, str, float, int], Attack] = {}
    for attack in attacks:
        identity = attack.name, attack.threat.name, attack.eps, attack.seed
        other = seen.setdefault(identity, attack)
        if other is not attack:
            raise UsageError(
                f"{attack!r} and {other!r} would share their rows: give them different options, "
                "budgets or seeds, or evaluate them apart"
            )
