"""An entry as text: ``"resize(256),center_crop(224),jpeg(90)"``."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from effattack.errors import EffattackError, UsageError, unknown_name
from effattack.victim.contract import Victim
from effattack.victim.entry.entry import Entry
from effattack.victim.entry.squeezing import bits, median
from effattack.victim.entry.steps import (
    Step,
    center_crop,
    jpeg,
    random_crop,
    random_flip,
    resize,
    webp,
)

STEPS: dict[str, Callable[..., Step]] = {
    step.__name__: step
    for step in (resize, center_crop, random_crop, random_flip, jpeg, webp, bits, median)
}
"""By name."""

SETTINGS = ("most_pixels", "seed", "draws")
"""Settings of an entry that stand among its steps, as ``most_pixels(1000000)``."""


def entry_of(victim: Victim, text: str) -> Entry:
    """A victim behind the steps of a text.

    Raises:
        UsageError: for an unknown step, an argument that it cannot have, or steps that do not end
            in the victim's size.
    """
    steps, settings = read_steps(text)
    return Entry(victim, steps, **settings)


def read_steps(text: str) -> tuple[list[Step], dict[str, Any]]:
    """The steps of a text, and the settings among them; only literals are read, none run.

    Raises:
        UsageError: naming the step, and what may be written.
    """
    steps: list[Step] = []
    settings: dict[str, Any] = {}
    for name, places, options in _calls(text):
        if name in SETTINGS:
            settings[name] = _whole(name, places, options)
        elif name in STEPS:
            steps.append(_step(name, places, options))
        else:
            raise unknown_name("step", name, [*STEPS, *SETTINGS])
    return steps, settings


def _calls(text: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Name, arguments and options of each call in a list of calls."""
    try:
        found = ast.parse(f"[{text}]", mode="eval").body
        assert isinstance(found, ast.List)
        return [_call(each) for each in found.elts]
    except (SyntaxError, ValueError) as error:
        raise UsageError(
            f"cannot read the steps {text!r}: write them as resize(256),center_crop(224),jpeg(90)"
        ) from error


def _call(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError("no call of a step")
    options = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    return node.func.id, [*map(ast.literal_eval, node.args)], options


def _step(name: str, places: list[Any], options: dict[str, Any]) -> Step:
    try:
        return STEPS[name](*places, **options)
    except EffattackError:
        raise
    except TypeError as error:
        raise UsageError(f"the step {name}: {error}: correct its arguments") from error


def _whole(name: str, places: list[Any], options: dict[str, Any]) -> int:
    if options or len(places) != 1 or type(places[0]) is not int or places[0] < 0:
        raise UsageError(f"{name} among the steps: give one whole number, as {name}(1000000)")
    return places[0]
