"""What an attacker may change: where to look, and how far.

The search moves a real-valued iterate inside the budget; what is scored and returned is
``on_grid`` of it: inside the budget, inside [0, 1], and on the 8-bit grid, because a deployed
model is fed 8-bit images.
"""

from __future__ import annotations

from effattack.budgets import parse_number
from effattack.errors import UsageError
from effattack.threats.balls import L1, L2, Box, Linf, Nothing
from effattack.threats.base import Threat
from effattack.threats.sparse import Patch, Pixels

__all__ = ["L1", "L2", "Box", "Linf", "Nothing", "Patch", "Pixels", "Threat", "parse_threat"]

_FORMS = "linf:8/255, l2:1.0, l1:10, patch:16, patch:16@4,4, pixels:20 or box"


def parse_threat(text: str) -> Threat:
    """The threat that is written as ``linf:8/255``, ``l2:1.0``, ``l1:10``, ``patch:16``,
    ``patch:16@4,4`` (row and column of the corner), ``pixels:20`` or ``box``.

    Raises:
        UsageError: for any other text, or a size that is none.
    """
    name, _, size = text.partition(":")
    if name in ("linf", "l2", "l1"):
        ball = {"linf": Linf, "l2": L2, "l1": L1}[name]
        return ball(parse_number(size, f"the size in {text!r}"))
    try:
        if name == "patch":
            side, at, place = size.partition("@")
            corner = tuple(int(part) for part in place.split(",")) if at else None
            return Patch(int(side), corner)
        if name == "pixels":
            return Pixels(int(size))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{text!r} is no threat ({error}): write {_FORMS}") from error
    if text == "box":
        return Box()
    raise UsageError(f"{text!r} is no threat: write {_FORMS}")
