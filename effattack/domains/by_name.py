"""Domains by name: ours, those that packages register, and ``module:Class``."""

from __future__ import annotations

from effattack.domains.base import Domain
from effattack.errors import UsageError, unknown_name
from effattack.registry import named, outside, read_name

GROUP = "effattack.domains"
BUILT_IN = {
    "pixels": "effattack.domains.pixels:Pixels",
    "series": "effattack.domains.series:Series",
    "tokens": "effattack.domains.tokens:Tokens",
    "graph": "effattack.domains.graph:Graph",
    "parts": "effattack.domains.parts:Parts",
}
"""Kind -> its class, which loads when it is named."""


def names() -> list[str]:
    """Ours, and those of installed packages."""
    return [*BUILT_IN, *outside(GROUP, BUILT_IN)]


def domain_of(text: str) -> Domain:
    """The domain that is written as ``series(channels=1, length=128, low=-1.0, high=1.0)``.

    Raises:
        UsageError: for what is no domain, or arguments that it does not take.
    """
    name, options = read_name(text)
    try:
        return domain_class(name)(**options)
    except TypeError as error:
        raise UsageError(f"{text} cannot be made ({error}): give what {name} takes") from error


def domain_class(text: str) -> type[Domain]:
    """The class that a kind, or a path ``package.module:Class``, stands for.

    Raises:
        UsageError: for a name that nobody registered, a path that does not import, or no domain.
    """
    if ":" not in text and text not in names():
        raise unknown_name("domain", text, BUILT_IN, outside(GROUP, BUILT_IN))
    found = named(GROUP, BUILT_IN.get(text, text))
    if not (isinstance(found, type) and issubclass(found, Domain)):
        raise UsageError(f"{text} is {found!r}, no class of effattack.domains.Domain: name one")
    return found
