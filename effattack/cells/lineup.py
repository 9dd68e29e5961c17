"""The line-up: the controls and attacks that a victim is scored under."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from effattack.attacks import Attack, Clean, build
from effattack.attacks.by_name import SHIFTS, spelled_out, threat_of, usual_controls
from effattack.attacks.fitting import Fit, prepared
from effattack.errors import NotApplicable, UsageError
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim
from effattack.victim.digests import attack_digest

Budget = float | str | Threat | None
"""An l-inf radius, a threat or its text, or the usual one of the victim's domain."""
Skipped = dict[str, str]
"""``victim``, ``attack``, and the ``reason`` why it will not be run."""


def lineup(
    victim: Victim,
    attacks: Sequence[Attack | str],
    budgets: Sequence[Budget],
    seeds: Sequence[int],
    fit: Fit,
) -> tuple[list[Attack], list[Skipped]]:
    """Controls and what was asked for in all budgets, each once; and what cannot apply.

    Args:
        victim, attacks, budgets, seeds: what to make; no budget: the usual one.
        fit: gives the inputs and labels that unfitted universal attacks learn from.

    Raises:
        NotApplicable: for a budget of another kind of inputs, if it is the only one.
        UsageError: for an attack made for another victim, or two that would share their rows.
    """
    ready: dict[str, Attack] = {}
    skipped: list[Skipped] = []
    for given in budgets or (None,):
        budget = parse_threat(given) if isinstance(given, str) else given
        asked, reasons = _asked(victim, attacks, budget, seeds)
        by_name = any(isinstance(given, str) for given in attacks)
        try:
            controls = _controls(victim, asked, by_name, budget, seeds)
        except NotApplicable as error:
            if len(budgets) < 2:
                raise
            reasons = [{"victim": victim.name, "attack": str(given), "reason": str(error)}]
            controls, asked = [Clean(victim)], []
        for attack in (*controls, *asked):
            ready.setdefault(attack_digest(attack), attack)
        skipped += [reason for reason in reasons if reason not in skipped]
    _check_distinct(ready.values())
    return [prepared(attack, fit) for attack in ready.values()], skipped


def asked_threats(
    victim: Victim, attacks: Sequence[Attack | str], budget: Budget = None
) -> list[Threat]:
    """What attacks may change, each threat once: what their controls are made for."""
    budget = parse_threat(budget) if isinstance(budget, str) else budget
    asked, _ = _asked(victim, attacks, budget, (0,))
    return _rivals(victim, asked, any(isinstance(given, str) for given in attacks), budget)


def _asked(
    victim: Victim,
    attacks: Sequence[Attack | str],
    budget: float | Threat | None,
    seeds: Sequence[int],
) -> tuple[list[Attack], list[Skipped]]:
    asked, skipped = [], []
    kind = victim.domain.kind
    if SHIFTS in attacks and not spelled_out([SHIFTS], [kind]):
        reason = f"of {victim.domain.nouns} no natural shift is known here"
        skipped.append({"victim": victim.name, "attack": SHIFTS, "reason": reason})
    for given in spelled_out(attacks, [kind]):
        if isinstance(given, str):
            try:
                asked += [build(given, victim, budget, seed) for seed in seeds]
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
    victim: Victim,
    asked: Sequence[Attack],
    by_name: bool,
    budget: float | Threat | None,
    seeds: Sequence[int],
) -> list[Attack]:
    """Those of every budget."""
    threats = _rivals(victim, asked, by_name, budget)
    beside = [c for t in threats for seed in seeds for c in usual_controls(victim, t, seed)]
    return [Clean(victim), *sorted(beside, key=lambda control: not control.budgeted)]


def _rivals(
    victim: Victim, asked: Sequence[Attack], by_name: bool, budget: float | Threat | None
) -> list[Threat]:
    """The threats of attacks; also the given one, if an attack was asked for by its name."""
    rivals = [attack.threat for attack in asked if attack.kind != "control"]
    if by_name or not rivals:
        rivals.append(threat_of(victim, budget).on(victim.domain))
    return sorted({str(t): t for t in rivals}.values(), key=lambda t: (t.name, t.eps))


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
