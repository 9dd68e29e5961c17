"""Answers that are sets: two agree where enough of their members have a counterpart."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

from effattack.errors import UsageError
from effattack.tasks.base import Task

NONE = -1.0
"""The score of a row that pads."""


class Shares(Task):
    """Sets of members, rows of numbers.

    Outputs, answers and labels are (B, N, numbers); one of the numbers is a score in [0, 1], and a
    row that only pads has score -1 and is no member. The share is the size of the largest
    one-to-one assignment of like members, over the size of the larger set; 1 of two empty sets.

    Args:
        share: least share at which two answers agree, in (0, 1].
        cap: most members of one answer; None where there is no such limit.
    """

    padding = NONE
    columns: ClassVar[tuple[str, ...]]
    """What the numbers of a row are, in their order; one is ``"score"``."""

    def __init__(self, share: float, cap: int | None) -> None:
        self.share = expect_share(f"{type(self).__name__}: share", share)
        if cap is not None and cap < 1:
            raise UsageError(
                f"{type(self).__name__}: cap = {cap!r}: give a whole number of at least 1, or None"
            )
        self.cap = cap

    @abstractmethod
    def alike(self, a: Tensor, b: Tensor) -> Tensor:
        """(n, columns), (m, columns) -> (n, m) bool: members that stand for the same thing."""

    def taken(self, rows: Tensor) -> Tensor:
        """(..., N, numbers) -> (..., N) bool: the rows that are members."""
        return rows[..., self._score] != NONE

    def check(self, labels: Tensor, count: int) -> None:
        width = len(self.columns)
        if not isinstance(labels, Tensor) or labels.dim() != 3 or labels.shape[2] != width:
            raise UsageError(
                f"labels must be a tensor (B, N, {width}) of rows {', '.join(self.columns)}, with "
                "score -1 in rows that pad"
            )
        if len(labels) != count:
            raise UsageError(f"there are {count} inputs but {len(labels)} sets of labels")
        if not self.valid(labels).all():
            raise UsageError("labels contain NaN or infinity: drop or repair them")

    def answer(self, outputs: Tensor) -> Tensor:
        return outputs

    def agree(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.shares(a, b) >= self.share - 1e-9

    def shares(self, a: Tensor, b: Tensor) -> Tensor:
        """(B,) float64: of the members of the larger set, how many have a counterpart."""
        found = [
            len(assigned(self.alike(one, other).tolist())) / max(len(one), len(other), 1)
            if len(one) or len(other)
            else 1.0
            for one, other in zip(self.members(a), self.members(b), strict=True)
        ]
        return torch.tensor(found, dtype=torch.float64, device=a.device)

    def leads(self, proposals: Tensor, wanted: Tensor) -> list[Tensor]:
        """Of each input, how far all that matters is from being otherwise than wanted.

        First each wanted member: the largest log-odds of a proposal that is like it, -1 of none,
        which has no gradient. Then each proposal that is like no wanted member: minus its log-odds.

        Args:
            proposals: (B, N, numbers), log-odds of being let in, not scores.
            wanted: the answers, (B, M, numbers).
        """
        members = zip(proposals, self.members(wanted), strict=True)
        return [self._leads(found, want) for found, want in members]

    def _leads(self, found: Tensor, want: Tensor) -> Tensor:
        odds, alike = found[:, self._score], self.alike(want, found)
        nearest = [odds[like].amax() if like.any() else odds.new_tensor(-1.0) for like in alike]
        return torch.cat([*(each[None] for each in nearest), -odds[~alike.any(0)]])

    def members(self, answers: Tensor) -> list[Tensor]:
        """The rows of each answer that are members."""
        return [rows[self.taken(rows)] for rows in answers]

    def right(self, answers: Tensor, labels: Tensor, kept: Tensor | None = None) -> Tensor:
        return self.agree(labels.to(answers), answers)

    def valid(self, outputs: Tensor) -> Tensor:
        finite = torch.isfinite(outputs).flatten(1).all(1)
        return finite if self.cap is None else finite & (self.taken(outputs).sum(1) <= self.cap)

    def gap(self, found: Tensor, expected: Tensor) -> Tensor:
        """Member by member, in their order; infinite where their numbers differ."""
        width = max(found.shape[1], expected.shape[1])
        found, expected = (
            pad(rows, (0, 0, 0, width - rows.shape[1]), value=NONE) for rows in (found, expected)
        )
        used = self.taken(found), self.taken(expected)
        found, expected = (
            torch.where(taken[..., None], rows, NONE)
            for rows, taken in zip((found, expected), used, strict=True)
        )
        change = (found - expected).abs().flatten(1)
        if not width:
            return change.sum(1)
        gap = change.amax(1) / expected.abs().flatten(1).amax(1).clamp_min(1)
        return torch.where((used[0] == used[1]).all(1), gap, torch.inf)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "columns": list(self.columns)}

    def example(self, count: int, generator: Generator) -> Tensor:
        size = min(self.cap or 4, 4)
        rows = torch.rand(count, size, len(self.columns), generator=generator) * 9
        rows[..., self._score] /= 9
        used = torch.randint(0, size + 1, (count, 1, 1), generator=generator)
        return rows.masked_fill(torch.arange(size).view(1, size, 1) >= used, NONE)

    def text(self, answer: Tensor) -> str:
        """The members, their numbers to three digits."""
        rows = self.members(answer[None])[0]
        return "; ".join(" ".join(f"{number:.3g}" for number in row) for row in rows.tolist())

    @property
    def _score(self) -> int:
        return self.columns.index("score")


def expect_share(name: str, share: float) -> float:
    """``share`` as a float.

    Raises:
        UsageError: if it is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"{name} = {share!r} is out of range: give a number in (0, 1]")
    return float(share)


def enough(excess: Tensor, count: int) -> Tensor:
    """How far ``count`` of these (n,) are from being positive, or, if they are, from ceasing to be.

    Of the ``count`` largest, the mean of those that are not; with enough, the last of them. Those
    that are missing are -1.
    """
    largest = excess.topk(min(count, len(excess))).values
    largest = pad(largest, (0, count - len(largest)), value=-1.0)
    lacking = largest[largest <= 0]
    return lacking.mean() if len(lacking) else largest[-1]


def assigned(alike: Sequence[Sequence[bool]]) -> dict[int, int]:
    """A largest one-to-one assignment, column -> row, by augmenting paths (Kuhn 1955)."""
    mate: dict[int, int] = {}

    def placed(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(alike[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in mate or placed(mate[column], tried):
                    mate[column] = row
                    return True
        return False

    for row in range(len(alike)):
        placed(row, set())
    return mate
