"""The work that judges a victim, in words: its MACs, or what else it declares, such as passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import NamedTuple

from effattack.reporting import words
from effattack.reporting.verdict import Row, unit_of
from effattack.reporting.words import missing
from effattack.results.currency import MACS, currency_of, unit, work_of

WORK = "work"
"""What is said of several victims that are judged by different counts."""


class Told(NamedTuple):
    """Of one row of scores, means over its inputs."""

    unit: str
    """ "MACs", "passes"."""
    clean: str
    attacked: str
    most: str
    ratio: str
    """Attacked over clean."""

    @property
    def moved(self) -> str:
        """ "7.2 → 43.6"."""
        return f"{self.clean} → {self.attacked}"

    @property
    def whole(self) -> str:
        """The same with its unit, where tables hold several."""
        return f"{self.moved}{words.NBSP}{self.unit}" if self.unit != "MACs" else self.moved


def told(row: Row) -> Told:
    """The work of a row in the count that judges it."""
    work, write = work_of(row), writer(row, like_of(row))
    return Told(
        unit(row),
        write(work.clean),
        write(work.attacked),
        writer(row, work.most)(work.most),
        words.ratio(row["macs_ratio" if by_macs(row) else "equals_n_requests"]),
    )


def macs(row: Row) -> Told:
    """The MACs of a row, whatever judges it."""
    return told({**row, "currency": MACS})


def by_macs(row: Row) -> bool:
    """Whether a row is judged by its MACs."""
    return currency_of(row) == MACS


def like_of(row: Row) -> float:
    """The number whose unit suits the whole row: its largest."""
    if by_macs(row):
        return unit_of(row)
    return max((value for value in work_of(row) if not missing(value)), default=1.0)


def writer(row: Row, like: float) -> Callable[[float], str]:
    """How amounts of that count are written, in the unit of ``like``."""
    return partial(words.macs if by_macs(row) else words.work, like=like)


def roomiest(rows: Iterable[Row]) -> Row:
    """The row of the largest max: inputs that a threat may lengthen have more than clean ones."""
    return max(rows, key=lambda row: -inf if missing(work_of(row).most) else work_of(row).most)


def rules(row: Row) -> list[tuple[str, float]]:
    """Lines that figures of that count have: the dense model's MACs, and the max."""
    dense = [("dense", row["dense_macs"])] if by_macs(row) else []
    return [*dense, ("max", work_of(row).most)]


def unit_in(rows: Iterable[Row]) -> str:
    """The count that judges all of some rows, or "work" where they are judged by several."""
    found = {unit(row) for row in rows} or {"MACs"}
    return found.pop() if len(found) == 1 else WORK


def capital(text: str) -> str:
    """With a large first letter, as headings have it."""
    return text[:1].upper() + text[1:]
