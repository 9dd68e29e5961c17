"""Names with options, ``Slowdown(keep_prediction=True)``: read, written, and checked."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from typing import Any

from effattack.errors import UsageError, unknown_name

COLUMNS = ("victim", "eps", "threat", "seed")
"""What an attack is made with beside its options: tables show these apart."""


def parse_name(text: str) -> tuple[str, dict[str, Any]]:
    """``"Slowdown(steps=20)"`` -> ("Slowdown", {"steps": 20}); only literals are read, none run.

    Raises:
        UsageError: if it is neither a name nor NAME(option=value, ...).
    """
    if "(" not in text:
        return text, {}
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("options are given as option=value")
        options = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
        if len(options) < len(call.keywords):
            raise ValueError("options are given as option=value, each once")
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"cannot read the attack {text!r} ({error}): write NAME(option=value, ...) with plain "
            "values, such as Slowdown(keep_prediction=True) or Slowdown(threat='l2:1.0')"
        ) from error
    return ast.unparse(call.func), options


def check_options(cls: type, name: str, options: Mapping[str, Any]) -> None:
    """Refuse an option that an attack does not have.

    Raises:
        UsageError: listing those that it has.
    """
    parameters = inspect.signature(cls).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    known = [key for key in parameters if key not in ("victim", "eps", "seed")]
    for option in options:
        if option not in known:
            listed = ", ".join(known) or "none"
            hint = unknown_name(f"option of {name}", option, known or [name])
            raise UsageError(f"{hint}; its options: {listed}")


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
