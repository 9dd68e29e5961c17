"""Names with options, ``Slowdown(keep_prediction=True)``: read, written, and checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from effattack.errors import UsageError, unknown_name

COLUMNS = ("victim", "eps", "threat", "seed")
"""What an attack is made with beside its options: tables show these apart."""
ELSEWHERE = {
    "eps": "the budget is given by itself (eps=, --eps), or as the option threat='linf:4/255'",
    "seed": "it is given by itself (seeds=, --seed)",
}
"""What the caller of :func:`effattack.attacks.build` gives, not the name."""


def check_options(cls: type, name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that an attack does not have, or a value of another kind than its default.

    Raises:
        UsageError: listing those that it has.
    """
    usual = options_of(cls)
    known = [*usual] if getattr(cls, "fixed", False) else ["threat", *usual]
    for option, value in options.items():
        if option in ELSEWHERE:
            raise UsageError(f"{option} is no option of {name}: {ELSEWHERE[option]}")
        if option not in known:
            raise _unknown(name, option, known)
        if option == "threat":
            continue
        if (kind := _kind(usual[option])) and not isinstance(value, _KINDS[kind]):
            raise UsageError(f"{name}: {option} = {value!r}: give a {kind}")


def _unknown(name: str, option: str, known: list[str]) -> UsageError:
    hint = unknown_name(f"option of {name}", option, known or [name])
    return UsageError(f"{hint}; its options: {', '.join(known) or 'none'}")


_KINDS: dict[str, type | tuple[type, ...]] = {
    "truth value": bool,
    "whole number": int,
    "number": (int, float),
    "text": str,
}


def _kind(default: Any) -> str | None:
    """Of what kind an option is, as its default tells; None where that says nothing."""
    return next((kind for kind, types in _KINDS.items() if isinstance(default, types)), None)


def options_of(cls: type) -> dict[str, Any]:
    """The options of an attack and their defaults, those of a constructor of its own included."""
    parameters = inspect.signature(cls).parameters.values()
    named = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return declared(cls) | {key: value for key, value in named.items() if key not in COLUMNS}


def declared(cls: type) -> dict[str, Any]:
    """The annotated attributes of a class that have a value, the base's first."""
    return {
        name: vars(each)[name]
        for each in reversed(cls.__mro__)
        for name, kind in inspect.get_annotations(each).items()
        if name in vars(each) and "ClassVar" not in str(kind)
    }


def options_given(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """All declared options of an attack, with the values that are given.

    Raises:
        UsageError: for one that it does not have.
    """
    usual = declared(cls)
    for option in options:
        if option not in usual:
            raise _unknown(cls.__name__, option, [*usual])
    return {**usual, **options}


def written(options: Mapping[str, Any]) -> str:
    """``steps=20, keep_prediction=True``."""
    return ", ".join(f"{key}={value!r}" for key, value in options.items())
