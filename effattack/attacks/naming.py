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
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [key for key in parameters if key not in ELSEWHERE and key != "victim"]
    for option, value in options.items():
        if option in ELSEWHERE:
            raise UsageError(f"{option} is no option of {name}: {ELSEWHERE[option]}")
        if option not in known:
            listed = ", ".join(known) or "none"
            hint = unknown_name(f"option of {name}", option, known or [name])
            raise UsageError(f"{hint}; its options: {listed}")
        if (kind := _kind(parameters[option].default)) and not isinstance(value, _KINDS[kind]):
            raise UsageError(f"{name}: {option} = {value!r}: give a {kind}")


_KINDS: dict[str, type | tuple[type, ...]] = {
    "truth value": bool,
    "whole number": int,
    "number": (int, float),
    "text": str,
}


def _kind(default: Any) -> str | None:
    """Of what kind an option is, as its default tells; None where that says nothing."""
    return next((kind for kind, types in _KINDS.items() if isinstance(default, types)), None)


def options_known(cls: type) -> dict[str, Any]:
    """The options of an attack, and their defaults."""
    parameters = inspect.signature(cls).parameters.items()
    return {k: p.default for k, p in parameters if p.default is not p.empty and k not in COLUMNS}


def options_given(
    cls: type, arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that a call of an attack's constructor means, its defaults included."""
    signature = inspect.signature(cls)
    try:
        bound = signature.bind_partial(*arguments, **keywords)
    except TypeError:
        return {}  # the constructor itself is about to say so
    bound.apply_defaults()
    options = {k: v for k, v in bound.arguments.items() if k in options_known(cls)}
    for key, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            options |= {k: v for k, v in bound.arguments[key].items() if k not in COLUMNS}
    return options


def written(options: Mapping[str, Any]) -> str:
    """``steps=20, keep_prediction=True``."""
    return ", ".join(f"{key}={value!r}" for key, value in options.items())
