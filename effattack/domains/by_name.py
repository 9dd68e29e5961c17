"""Domains by name: ours, those that packages register, and ``module:Class``."""

from __future__ import annotations

from effattack.domains.base import Domain
from effattack.domains.pixels import Pixels
from effattack.domains.series import Series
from effattack.domains.tokens import Tokens
from effattack.errors import UsageError, unknown_name
from effattack.registry import entries, named, read_name

GROUP = "effattack.domains"
BUILT_IN: dict[str, type[Domain]] = {"Pixels": Pixels, "Series": Series, "Tokens": Tokens}


def parse_domain(text: str) -> Domain:
    """The domain that is written as ``Series(channels=1, length=24, low=-3.0, high=3.0)``.

    The name is one of ours, of the entry points ``effattack.domains``, or ``package.module:Class``.

    Raises:
        UsageError: for any other text, or options that the domain does not take.
    """
    name, options = read_name(text)
    if name not in BUILT_IN and ":" not in name and name not in entries(GROUP):
        raise unknown_name("domain", name, [*BUILT_IN, *entries(GROUP)])
    make = BUILT_IN.get(name) or named(GROUP, name)
    try:
        domain = make(**options)
    except TypeError as error:
        told = f"{text!r} is no domain ({error}): write NAME(option=value, ...)"
        raise UsageError(told) from error
    if not isinstance(domain, Domain):
        raise UsageError(f"{name} makes a {type(domain).__name__}, no effattack.domains.Domain")
    return domain
