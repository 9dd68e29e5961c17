"""Points of one image matched with points of another."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from effattack.errors import UsageError
from effattack.tasks.shares import Shares


class Matches(Shares):
    """Matches: two stand for the same thing if both of their ends lie near each other.

    Args:
        pixels: largest distance of two ends, in pixels of the images.
        share: least share of matches with a counterpart at which two answers agree.
        cap: most matches of one pair of images; None where there is no such limit.

    Raises:
        UsageError: for a number that is out of range.
    """

    noun = "matches"
    columns = ("x", "y", "x there", "y there", "score")

    def __init__(self, pixels: float = 3.0, share: float = 0.5, cap: int | None = None) -> None:
        super().__init__(share, cap)
        if not 0 <= pixels < float("inf"):
            raise UsageError(f"Matches: pixels = {pixels!r}: give a finite number of at least 0")
        self.pixels = float(pixels)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "pixels": self.pixels}

    def alike(self, a: Tensor, b: Tensor) -> Tensor:
        change = (a[:, None, :4] - b[None, :, :4]).double()
        here, there = change[..., :2].norm(dim=2), change[..., 2:].norm(dim=2)
        return (here <= self.pixels) & (there <= self.pixels)
