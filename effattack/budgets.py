"""Budgets as people write and read them; no torch: the pytest plugin reads them at start-up."""

from __future__ import annotations

import math

from effattack.errors import UsageError

LEVELS = 255
"""Steps of the 8-bit grid between 0 and 1."""
DEVIATIONS = "sd"
"""The unit of budgets in standard deviations of the training data."""
COUNTED = (
    {"patch": "px", "pixels": "px", "window": "steps"}
    | dict.fromkeys(("suffix", "prefix", "swap"), "tokens")
    | {"chars": "characters", "edges": "edges"}
)
"""What threats count that have no distance as size."""


def check_eps(eps: float) -> float:
    """The size of a budget as a float; whether a domain has such a change, the threat checks.

    Raises:
        UsageError: if it is not a positive finite number.
    """
    if not isinstance(eps, int | float) or not 0 < eps < math.inf:
        raise UsageError(f"eps = {eps!r} is no budget: give a positive number, such as 8/255")
    return float(eps)


def check_count(count: int, what: str) -> int:
    """A number of pixels, times or tokens.

    Raises:
        UsageError: if it is not a whole number of at least 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UsageError(f"{what} = {count!r}: give a whole number of at least 1")
    return count


def parse_eps(text: str) -> float:
    """``"8/255"`` or ``"0.03"`` -> an l-inf budget.

    Raises:
        UsageError: if it is no budget.
    """
    if text.lower().endswith("sd"):
        raise UsageError(
            f"--eps {text!r} is a size in deviations of the training data: write --threat "
            f"linf:{text.lower()}"
        )
    return check_eps(parse_number(text, f"--eps {text!r}"))


def parse_number(text: str, what: str) -> float:
    """``"8/255"`` or ``"0.03"`` -> a number; ``what`` names it in the error."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{what} is no number: write 8/255 or 0.03") from error


def exact(value: float) -> str:
    """A number as short as reads back the same: 8 of 8.0, else all of its digits."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(float(value))


def size_text(threat: str, eps: float) -> str:
    """The size of a budget in the unit of its threat: "8/255", "0.1sd", "64 px", "pixel box".

    That of a part, ``image:linf``, is written as of inputs that are such a part.
    """
    kind, _, unit = threat.rpartition(":")[2].partition("@")
    if kind in ("none", "box"):
        return {"none": "none", "box": "pixel box"}[kind]
    if kind in COUNTED:
        return f"{eps:g} {COUNTED[kind]}"
    if unit == DEVIATIONS:
        return f"{eps:.3g}{DEVIATIONS}"
    levels = eps * LEVELS
    whole = abs(levels - round(levels)) < 1e-6 and levels >= 0.5 and eps != float(f"{eps:.3g}")
    return f"{round(levels)}/255" if kind == "linf" and whole else f"{eps:.3g}"


def budget_text(threat: str, eps: float) -> str:
    """A budget that cannot be taken for another threat's: "8/255" is l-inf, "l2 0.5" is not.

    One of several parts together is told by its name, ``image:linf:8/255+question:swap:1``.
    """
    if "+" in threat:
        return threat
    size = size_text(threat, eps)
    name = threat.removesuffix(f"@{DEVIATIONS}")
    return size if name in ("linf", "none", "box", "chars", "edges") else f"{name} {size}"


def at_budget(threat: str, eps: float) -> str:
    """The same inside a sentence: "eps 8/255", "l2 0.5"."""
    text = budget_text(threat, eps)
    return f"eps {text}" if threat.partition("@")[0] == "linf" else text
