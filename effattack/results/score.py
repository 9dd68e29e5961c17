"""One score: how it is made, judged and written. All of them: :mod:`effattack.results.table`.

Imports neither torch nor pandas: limits are read, and sessions collected, without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Literal

from effattack.results.unmeasured import Reason, is_nan

if TYPE_CHECKING:
    from effattack.measure.statistics import Interval
    from effattack.results.rows import Rows

Better = Literal["more", "less"]
Form = Literal["percent", "retained", "ratio", "macs", "amount", "count", "number", "text"]
"""How a value is written: :data:`effattack.reporting.words.FORMS`."""


@dataclass(frozen=True)
class Shown:
    """Where a score stands in tables, and how. ``{one}`` and ``{many}`` in words are its inputs.

    Attributes:
        form: how its values are written.
        title: above its column; its name where empty.
        group: the heading above the title; empty: in no table of the report.
        hint: small words under the title.
        first: whether it stands first of its group.
        flat: its header in tables without headings; its title where empty, None: not there.
        brief: its header in the narrow table of a terminal; empty: not there.
        interval: whether its interval has a column, too.
        sparse: whether tables leave it out in which no row has it.
        headline: whether it stands beside the verdict: in summaries and model cards.
        meaning: in one line, for the glossary; empty: not there.
    """

    form: Form = "number"
    title: str = ""
    group: str = "Also"
    hint: str = ""
    first: bool = False
    flat: str | None = ""
    brief: str = ""
    interval: bool = False
    sparse: bool = False
    headline: bool = False
    meaning: str = ""


HIDDEN = Shown(group="", flat=None)
"""Of a column that is in no table: it is for programs, or written into another one."""


@dataclass(frozen=True)
class Score:
    """One column of the score table, with its bounds if it has an interval.

    Attributes:
        name: the column, and what a limit calls it.
        of: makes it from the rows of one victim, attack, threat and eps, seeds pooled: a number, a
            text, or an :class:`~effattack.measure.statistics.Interval`. NaN: not measured.
        better: which way is better; None for a fact that no limit can judge.
        range: of the numbers that a limit on it may take.
        timed: it is of the clock or the meter, which neighbours on the machine disturb: it has no
            union, and a limit judges the worst compute attack inside the budget.
        answers: it is of what a victim says, not of what that costs.
        bounds: the stem of the columns of its interval, ``{bounds}_low`` and ``{bounds}_high``;
            empty for a score without one.
        judged_by: the bound that a limit judges in its place, where one value is too noisy.
        share: two of them are compared by their difference, others by their ratio.
        proven: it bounds all attacks of the threat, and no row of any brought it about.
        kept: in baselines.
        empty: why a row has none, and the remedy.
        shown: in tables.
    """

    name: str
    of: Callable[[Rows], Interval | float | str | bool | None]
    better: Better | None = None
    range: tuple[float, float] = (0, inf)
    timed: bool = False
    answers: bool = False
    bounds: str = ""
    judged_by: str = ""
    share: bool = False
    proven: bool = False
    kept: bool = False
    empty: Callable[[Mapping[str, Any]], Reason] = is_nan
    shown: Shown = field(default_factory=Shown)

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in ``scores.csv``."""
        return (self.name, *([f"{self.bounds}_low", f"{self.bounds}_high"] if self.bounds else []))

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.shown.title or self.words[:1].upper() + self.words[1:]

    @property
    def flat(self) -> str:
        """What tables without headings call it."""
        return self.shown.flat or self.title

    @property
    def words(self) -> str:
        """Its name inside a sentence."""
        return self.name.replace("_", " ")

    def __call__(self, rows: Rows) -> dict[str, object]:
        """Its columns, of these rows."""
        value = self.of(rows)
        values = value if isinstance(value, tuple) else (value,)
        return dict(zip(self.columns, values, strict=False))
