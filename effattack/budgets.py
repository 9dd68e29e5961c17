"""Budgets as people write and read them; no torch: the pytest plugin reads them at start-up."""

from __future__ import annotations

import math

from effattack.errors import UsageError

LEVELS = 255
"""Steps of the 8-bit grid between 0 and 1."""


def check_eps(eps: float) -> float:
    """The l-inf budget as a float.

    Raises:
        UsageError: if it is not a number in [1/255, 1]; below one step of 8-bit images no pixel
            can change.
    """
    if not isinstance(eps, int | float) or not 0 < eps <= 1:
        raise UsageError(f"eps = {eps!r} is no budget: give a number in (0, 1], such as 8/255")
    return at_least_one_step(eps)


def check_norm(eps: float) -> float:
    """The radius of an l2 or l1 ball as a float.

    Raises:
        UsageError: if it is not a finite number of at least 1/255.
    """
    if not isinstance(eps, int | float) or not 0 < eps < math.inf:
        raise UsageError(f"eps = {eps!r} is no radius: give a positive number, such as 1.0")
    return at_least_one_step(eps)


def check_count(count: int, what: str) -> int:
    """A number of pixels.

    Raises:
        UsageError: if it is not a whole number of at least 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise UsageError(f"{what} = {count!r}: give a whole number of pixels, at least 1")
    return count


def at_least_one_step(eps: float) -> float:
    """``eps`` as a float, if one pixel can change by one step of 8-bit images."""
    if eps * LEVELS < 1 - 1e-6:
        raise UsageError(
            f"eps = {eps:.3g} is less than one step of 8-bit images (1/255): no pixel can change; "
            "use eps >= 1/255"
        )
    return float(eps)


def parse_eps(text: str) -> float:
    """``"8/255"`` or ``"0.03"`` -> an l-inf budget.

    Raises:
        UsageError: if it is no budget.
    """
    return check_eps(parse_number(text, f"--eps {text!r}"))


def parse_number(text: str, what: str) -> float:
    """``"8/255"`` or ``"0.03"`` -> a number; ``what`` names it in the error."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"{what} is no number: write 8/255 or 0.03") from error


def size_text(threat: str, eps: float) -> str:
    """The size of a budget in the unit of its threat: "8/255", "0.5", "64 px", "pixel box"."""
    kind = threat.partition("@")[0]
    if kind in ("none", "box"):
        return {"none": "none", "box": "pixel box"}[kind]
    if kind in ("patch", "pixels"):
        return f"{eps:g} px"
    levels = eps * LEVELS
    whole = abs(levels - round(levels)) < 1e-6 and levels >= 0.5
    return f"{round(levels)}/255" if kind == "linf" and whole else f"{eps:.3g}"


def budget_text(threat: str, eps: float) -> str:
    """A budget that cannot be taken for another threat's: "8/255" is l-inf, "l2 0.5" is not."""
    size = size_text(threat, eps)
    return size if threat in ("linf", "none", "box") else f"{threat} {size}"


def at_budget(threat: str, eps: float) -> str:
    """The same inside a sentence: "eps 8/255", "l2 0.5"."""
    return f"eps {budget_text(threat, eps)}" if threat == "linf" else budget_text(threat, eps)
