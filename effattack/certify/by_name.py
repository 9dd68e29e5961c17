"""Certificates by kind: the one that was asked for, or the first that applies."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from effattack.certify.certificate import Certificate
from effattack.certify.kinds import KINDS, check_kind, covered
from effattack.domains import Batch
from effattack.errors import NotApplicable, UsageError, unknown_name
from effattack.registry import named
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim

GROUP = "effattack.certificates"


def certify(
    victim: Victim, inputs: Batch, threat: Threat | str, kind: str = "auto", **options: Any
) -> Certificate:
    """Bound what inputs of a threat make a victim do.

    ``"auto"`` takes the first kind that applies, in the order of the table
    (:data:`effattack.certify.kinds.KINDS`): exact worst cases before bounds, and the cap, which
    says nothing of savings, last.

    Args:
        victim: in any mode.
        inputs: clean ones of its domain.
        threat: a threat, or its text.
        kind: a name of the table, or ``"auto"``.
        options: of the kind; with ``"auto"`` each kind takes those that it knows.

    Raises:
        UsageError: for an unknown kind or option.
        NotApplicable: where the kind, or none, covers victim and threat, naming what each covers.
    """
    check_kind(kind)
    victim.domain.check(inputs)
    threat = parse_threat(threat) if isinstance(threat, str) else threat
    threat = threat.on(victim.domain)
    inputs = victim.domain.snap(victim.domain.place(inputs, victim.device))
    if kind != "auto":
        found = maker(kind)
        if strange := sorted(options.keys() - _options(found)):
            raise unknown_name(f"option of {kind}", strange[0], sorted(_options(found)))
        return found(victim, inputs, threat, **options)
    _expect_known(options)
    for name in KINDS:
        found = maker(name)
        own = {key: value for key, value in options.items() if key in _options(found)}
        try:
            return found(victim, inputs, threat, **own)
        except NotApplicable:
            continue
    raise NotApplicable(f"no certificate covers {victim.name} at {threat}: {covered()}")


def maker(kind: str) -> Callable[..., Certificate]:
    """The function that makes certificates of a kind."""
    found: Callable[..., Certificate] = named(GROUP, KINDS[kind].place)
    return found


def _options(function: Callable[..., Certificate]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _expect_known(options: dict[str, Any]) -> None:
    known = {option for name in KINDS for option in _options(maker(name))}
    if strange := sorted(options.keys() - known):
        raise UsageError(f"{strange[0]} is an option of no certificate: known: {sorted(known)}")
