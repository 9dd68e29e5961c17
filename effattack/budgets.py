"""Budgets as people write them; no torch, so that the pytest plugin can read them at start-up."""

from __future__ import annotations

from effattack.errors import UsageError

LEVELS = 255
"""Steps of the 8-bit grid between 0 and 1."""


def check_eps(eps: float) -> float:
    """The budget as a float.

    Raises:
        UsageError: if it is not a number in [1/255, 1]; below one step of 8-bit images no pixel
            can change.
    """
    if not isinstance(eps, int | float) or not 0 < eps <= 1:
        raise UsageError(f"eps = {eps!r} is no budget: give a number in (0, 1], such as 8/255")
    if eps * LEVELS < 1 - 1e-6:
        raise UsageError(
            f"eps = {eps:.3g} is less than one step of 8-bit images (1/255): no pixel can change; "
            "use eps >= 1/255"
        )
    return float(eps)


def parse_eps(text: str) -> float:
    """``"8/255"`` or ``"0.03"`` -> a budget.

    Raises:
        UsageError: if it is no budget.
    """
    top, slash, bottom = text.partition("/")
    try:
        eps = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--eps {text!r} is no number: write 8/255 or 0.03") from error
    return check_eps(eps)
