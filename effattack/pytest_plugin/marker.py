"""``@pytest.mark.effattack(...)``: what a test wants scored, and the limits it sets.

Read without torch: at collection, and checked before the test runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from effattack.budgets import check_eps, parse_eps
from effattack.errors import UsageError, unknown_name
from effattack.pytest_plugin.options import Settings
from effattack.registry import VICTIMS, entries, expect_twinned, is_file
from effattack.results.limits import Limit, parse_limit


class Asked(NamedTuple):
    """A victim as options and marker name it, and what stands beside its name."""

    name: str
    twin: str = ""
    through: str = ""

    def __str__(self) -> str:
        return self.name


MARKER = (
    "effattack(victims, twin, through, attacks, eps, threat, seeds, timed, batch_size, fail_below, "
    "fail_above): what effattack_victim and effattack_evaluate score in this test, unless "
    "--effattack-victim or an argument says otherwise, and the limits they hold it to, such as "
    "fail_below={'savings_retained': 0.6}"
)


def marked(node: pytest.Item | pytest.Function | None) -> dict[str, Any]:
    """The checked arguments of a test's markers, those nearest to it first.

    ``eps`` is a number, or the text of a threat; ``limits`` a list of ``Limit``; the rest as given.

    Raises:
        UsageError: for an argument that there is not, or a value that it cannot have.
    """
    given: dict[str, Any] = {}
    for marker in node.iter_markers("effattack") if node else ():
        if marker.args:
            raise UsageError(
                f"mark.effattack({marker.args[0]!r}): name the argument, such as victims=[...]"
            )
        for key in marker.kwargs:
            if key not in _READ:
                raise unknown_name("argument of mark.effattack", key, _READ)
        given = {**marker.kwargs, **given}
    read = {key: _READ[key](value) for key, value in given.items()}
    if "threat" in read:
        read["eps"] = read.pop("threat")
    limits = [*read.pop("fail_below", []), *read.pop("fail_above", [])]
    return {**read, "limits": limits}


def victims_of(settings: Settings, asked: Mapping[str, Any]) -> list[Asked]:
    """The victims of a test: those of the options, else of its marker, else all registered ones.

    Raises:
        UsageError: for a twin where no victim is a file.
    """
    names = [settings.victim] if settings.victim else asked.get("victims", [*entries(VICTIMS)])
    twin, through = (getattr(settings, key) or asked.get(key, "") for key in ("twin", "through"))
    expect_twinned(names, twin)
    return [Asked(name, twin if is_file(name) else "", through) for name in names]


def limits_of(item: pytest.Item) -> list[tuple[str, Limit]]:
    """The limits of a test's markers, each with the test, class or module that carries it.

    Raises:
        UsageError: for what is no limit.
    """
    found: list[tuple[str, Limit]] = []
    for key in ("fail_below", "fail_above"):
        for node, marker in item.iter_markers_with_node("effattack"):
            if key in marker.kwargs:
                found += [(node.nodeid, limit) for limit in _READ[key](marker.kwargs[key])]
                break
    return found


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise UsageError(f"mark.effattack: {value!r} is no list of names")
    return list(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"mark.effattack: {value!r} is no text: give a name, or steps as text")
    return value


def _eps(value: Any) -> float:
    return parse_eps(value) if isinstance(value, str) else check_eps(value)


def _threat(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"mark.effattack(threat={value!r}): give its text, such as 'l2:1.0'")
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not value or not all(map(_is_count, value)):
        raise UsageError(f"mark.effattack(seeds={value!r}): give whole numbers, 0 or more")
    return tuple(value)


def _timed(value: Any) -> int:
    if not _is_count(value):
        raise UsageError(f"mark.effattack(timed={value!r}): give a number of inputs, 0 or more")
    return int(value)


def _batch_size(value: Any) -> int:
    if not _is_count(value) or not value:
        raise UsageError(
            f"mark.effattack(batch_size={value!r}): give a number of inputs, 1 or more"
        )
    return int(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _limits(fail_below: bool) -> Callable[[Any], list[Limit]]:
    def read(value: Any) -> list[Limit]:
        if not isinstance(value, Mapping):
            raise UsageError(
                f"mark.effattack: {value!r} is no limit: write a score and its value, such as "
                + ("{'savings_retained': 0.6}" if fail_below else "{'macs_ratio': 1.5}")
            )
        return [parse_limit(f"{k}={v}", fail_below=fail_below) for k, v in value.items()]

    return read


_READ: dict[str, Callable[[Any], Any]] = {
    "victims": _strings,
    "twin": _text,
    "through": _text,
    "attacks": _strings,
    "eps": _eps,
    "threat": _threat,
    "seeds": _seeds,
    "timed": _timed,
    "batch_size": _batch_size,
    "fail_below": _limits(True),
    "fail_above": _limits(False),
}
