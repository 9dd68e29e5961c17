"""Points of one image matched with points of another."""

from __future__ import annotations

from math import ceil, log
from typing import Any

import torch
from torch import Tensor

from effattack.errors import UsageError
from effattack.tasks.shares import Shares, enough

LEAST_LEAD = 1e-3
"""How far behind an answer is that does not agree only because two matches have one counterpart."""


class Matches(Shares):
    """Matches: two stand for the same thing if both of their ends lie near each other.

    Args:
        pixels: largest distance of two ends, in pixels of the images.
        share: least share of matches with a counterpart at which two answers agree.
        cap: most matches of one pair of images; None where there is no such limit.
        least: score that a match exceeds, in (0, 1); rows of lower ones are candidates that were
            not taken, which a trace may show behind its matches: no reading counts them, and the
            lead has its slope from them. None: every row is a match, and there is no lead.

    Raises:
        UsageError: for a number that is out of range.
    """

    noun = "matches"
    columns = ("x", "y", "x there", "y there", "score")

    def __init__(
        self,
        pixels: float = 3.0,
        share: float = 0.5,
        cap: int | None = None,
        least: float | None = None,
    ) -> None:
        super().__init__(share, cap)
        if not 0 <= pixels < float("inf"):
            raise UsageError(f"Matches: pixels = {pixels!r}: give a finite number of at least 0")
        if least is not None and not 0 < least < 1:
            raise UsageError(f"Matches: least = {least!r}: give a score in (0, 1), or None")
        self.pixels, self.least = float(pixels), least

    def taken(self, rows: Tensor) -> Tensor:
        return super().taken(rows) if self.least is None else rows[..., self._score] > self.least

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "pixels": self.pixels}

    def alike(self, a: Tensor, b: Tensor) -> Tensor:
        change = (a[:, None, :4] - b[None, :, :4]).double()
        here, there = change[..., :2].norm(dim=2), change[..., 2:].norm(dim=2)
        return (here <= self.pixels) & (there <= self.pixels)

    def lead(self, outputs: Tensor, wanted: Tensor) -> Tensor | None:
        """(B,) in [-1, 1]: how far enough wanted matches are from being found, or being lost.

        Of a wanted match, x / (1 + |x|), with x the log of the best score among the rows like it,
        candidates included, over the least one; -1 without any. So many of them must be positive
        as the share asks for, and what each of these lacks counts.
        """
        if self.least is None:
            return None
        agrees = self.agree(wanted, outputs)
        pairs = zip(outputs, self.members(outputs), self.members(wanted), strict=True)
        leads = torch.stack([self._lead(*pair, self.least) for pair in pairs])
        behind = leads - leads.detach() - LEAST_LEAD
        return torch.where(agrees | (leads < 0), leads, behind)

    def _lead(self, rows: Tensor, found: Tensor, wanted: Tensor, least: float) -> Tensor:
        """Of one pair of images; 1 where nothing is wanted or found."""
        count = ceil(self.share * max(len(found), len(wanted)) - 1e-9)
        if not count or not len(rows):
            return rows.new_tensor(-1.0 if count else 1.0)
        scores = rows[:, self._score]
        alike = self.alike(wanted, rows) & (scores >= 0)
        best = torch.where(alike, scores, 0).amax(1).clamp_min(torch.finfo(scores.dtype).tiny)
        beyond = best.log() - log(least)
        beyond = torch.where(alike.any(1), beyond / (1 + beyond.abs()), -1)
        return enough(beyond, count)
