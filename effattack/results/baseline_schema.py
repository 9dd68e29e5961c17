"""What a baseline file must hold, field by field, and in which range."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from reprlib import repr as shortened
from typing import Any, NamedTuple

from effattack.results.currency import MACS
from effattack.results.table import SCORES as TABLE

LARGEST = 1e30
"""Of any number: no count of anything comes near."""


class Leaf(NamedTuple):
    """A single value."""

    wanted: str
    holds: Callable[[Any], bool]
    read: Callable[[Any], Any] = lambda value: value


class Each(NamedTuple):
    """A list."""

    of: Shape
    fewest: int = 0


class Named(NamedTuple):
    """An object whose keys are free, but for those that it must have."""

    of: Shape
    needed: Sequence[str] = ()


class Maybe(NamedTuple):
    """A field that may be missing."""

    of: Shape
    otherwise: Any


Shape = Leaf | Each | Named | Mapping[str, Any]
"""A mapping is an object of exactly these fields, each a shape, or :class:`Maybe` one."""


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= LARGEST


TEXT = Leaf("text", lambda value: type(value) is str)
MAYBE_TEXT = Leaf("text or null", lambda value: value is None or type(value) is str)
FACT = Leaf("text, a number or null", lambda value: MAYBE_TEXT.holds(value) or _number(value))
KIND = Leaf(
    "union, compute, accuracy or control",
    lambda value: type(value) is str and value in ("union", "compute", "accuracy", "control"),
)
WHOLE = Leaf("a whole number", lambda value: type(value) is int and abs(value) <= LARGEST)
COUNT = Leaf("a whole number of at least 1", lambda value: WHOLE.holds(value) and value >= 1)
SIZE = Leaf("a whole number of at least 1, or null", lambda v: v is None or COUNT.holds(v))
BUDGET = Leaf("a number of at least 0", lambda value: _number(value) and value >= 0, float)
POSITIVE = Leaf("a number above 0", lambda value: _number(value) and value > 0, float)
SHARE = Leaf("a number from 0 to 1", lambda value: _number(value) and 0 <= value <= 1, float)
SCORE = Leaf(
    "a number or null",
    lambda value: value is None or _number(value),
    lambda value: nan if value is None else float(value),
)
MOST = Leaf(
    "a number above 0 or null",
    lambda value: value is None or POSITIVE.holds(value),
    SCORE.read,
)

SCORES = tuple(score.name for score in TABLE if score.kept)
"""Of the score table, kept for people; those of other packages beside them."""
LATER = {"cap_hit_rate"}
"""Those of them that earlier files lack."""
SERIES: dict[str, Any] = {
    "attack": TEXT,
    "kind": KIND,
    "threat": TEXT,
    "eps": BUDGET,
    "scores": Named(SCORE, tuple(name for name in SCORES if name not in LATER)),
    "macs": Each(POSITIVE, 1),
    "correct": Each(SHARE, 1),
    "slowdown": Each(POSITIVE),
    "work": Maybe(Each(BUDGET), []),
    "ceiling": Maybe(Each(MOST), []),
    "capped": Maybe(Each(SHARE), []),
}
RECORD: dict[str, Any] = {
    "family": TEXT,
    "input_shape": Each(SIZE),
    "num_classes": Maybe(COUNT, 0),
    "currency": Maybe(TEXT, MACS),
    "max_macs": MOST,
    "digest": TEXT,
    "data": Each(TEXT),
    "series": Each(SERIES, 1),
}
OPTIONAL = {
    key: one.otherwise
    for shape in (SERIES, RECORD)
    for key, one in shape.items()
    if isinstance(one, Maybe)
}
"""What a file leaves out where it is as usual."""
FILE: Shape = {
    "schema": WHOLE,
    "made": {
        "created": MAYBE_TEXT,
        "command": MAYBE_TEXT,
        "commit": MAYBE_TEXT,
        "attacks": Each(TEXT),
        "seeds": Each(WHOLE),
        "packages": Named(TEXT),
        "machine": Named(FACT),
    },
    "victims": Named(RECORD),
}


def read(value: Any, shape: Shape, field: str = "") -> Any:
    """A value of JSON as what it stands for: numbers as floats, null as NaN where it is one.

    Raises:
        ValueError: naming the field and what it must be.
    """
    if isinstance(shape, Leaf):
        if not shape.holds(value):
            raise wrong(field, value, shape.wanted)
        return shape.read(value)
    if isinstance(shape, Each):
        if not isinstance(value, list) or len(value) < shape.fewest:
            raise wrong(field, value, f"a list of at least {shape.fewest}")
        return [read(one, shape.of, f"{field}[{at}]") for at, one in enumerate(value)]
    if not isinstance(value, dict):
        raise wrong(field, value, "an object")
    if isinstance(shape, Named):
        return _fields(value, dict.fromkeys([*shape.needed, *value], shape.of), field)
    return _fields(value, shape, field)


def _fields(value: dict[str, Any], shape: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The fields of an object; those that may be missing are there in any case."""
    whole = {key: one.of if isinstance(one, Maybe) else one for key, one in shape.items()}
    otherwise = {key: one.otherwise for key, one in shape.items() if isinstance(one, Maybe)}
    if lacking := [key for key in whole if key not in {**otherwise, **value}]:
        raise ValueError(f"{_inside(field, lacking[0])} is missing")
    if unknown := [key for key in value if key not in whole]:
        raise ValueError(f"{_inside(field, unknown[0])} is no field of a baseline")
    given = {key: read(one, whole[key], _inside(field, key)) for key, one in value.items()}
    return {**otherwise, **given}


def wrong(field: str, value: Any, wanted: str) -> ValueError:
    """The error for a value that is not what it must be."""
    shown = "null" if value is None else shortened(value)
    return ValueError(f"{field or 'the file'} is {shown}: it must be {wanted}")


def _inside(field: str, key: str) -> str:
    return f"{field}.{key}" if field else key
