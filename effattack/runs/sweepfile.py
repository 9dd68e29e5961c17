"""Reading a sweep file: TOML whose keys are the fields of a sweep, names and numbers only."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from effattack.budgets import parse_eps
from effattack.errors import UsageError, unknown_name
from effattack.results.files import regular
from effattack.threats import parse_threat


def read(path: Path, fields: Iterable[str]) -> dict[str, Any]:
    """The fields that a file gives.

    Args:
        path: of the file.
        fields: known keys.

    Raises:
        UsageError: naming the line, and what to write there.
    """
    try:
        text = regular(path).read_text(encoding="utf-8-sig")
        given = tomllib.loads(text)
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): give a sweep file") from error
    except ValueError as error:
        raise UsageError(f"{path} is no TOML: {error}: correct it there") from error
    for key in given:
        if key not in fields:
            raise UsageError(f"{_place(path, text, key)}: {unknown_name('key', key, fields)}")
    if "victims" not in given:
        raise UsageError(f'{path} names no victims: add victims = ["NAME", "module:factory"]')
    return {key: _value(key, value, _place(path, text, key)) for key, value in given.items()}


def _value(key: str, value: Any, place: str) -> Any:
    of_kind, wanted, convert = _KINDS[key]
    values = value if isinstance(value, list) else [value]
    if isinstance(value, list) == (key in _SINGLE) or not all(map(of_kind, values)):
        listed = "" if key in _SINGLE else "a list of "
        raise UsageError(f"{place}: {key} = {value!r}: it must be {listed}{wanted}")
    try:
        found = tuple(map(convert, values))
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error
    return found[0] if key in _SINGLE else found


def _place(path: Path, text: str, key: str) -> str:
    """File and line of a key."""
    pattern = rf"""^\s*\[*\s*["']?{re.escape(key)}["']?\s*[=.\]]"""
    match = re.search(pattern, text, re.MULTILINE)
    line = text[: match.end()].count("\n") + 1 if match else 1
    return f"{path}, line {line}"


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def read_budget(value: str | int | float) -> float | str:
    """A radius, or the text of a threat, which begins with a name."""
    if isinstance(value, str) and value.strip()[:1].isalpha():
        parse_threat(value)
        return value
    return parse_eps(str(value))


def _same(value: Any) -> Any:
    return value


_NAME = (_is(str), "text", _same)
_COUNT = (_is(int), "a whole number", _same)
_SWITCH = (_is(bool), "true or false", _same)
_KINDS: dict[str, tuple[Callable[[Any], bool], str, Callable[[Any], Any]]] = {
    "victims": (_is(str), "registered names, module:factory or files", _same),
    "twin": _NAME,
    "through": _NAME,
    "attacks": (_is(str), "names", _same),
    "budgets": (_is(str, int, float), "numbers, or text such as '8/255' or 'l2:1.0'", read_budget),
    "seeds": _COUNT,
    "data": _NAME,
    "fit": _NAME,
    "samples": _COUNT,
    "slice": _COUNT,
    "timed": _COUNT,
    "batch_size": _COUNT,
    "seconds": (_is(int, float), "a number", float),
    "energy": _SWITCH,
    "device": _NAME,
    "skip_bad": _SWITCH,
    "certify": _NAME,
}
_SINGLE = {*_KINDS} - {"victims", "attacks", "budgets", "seeds"}
