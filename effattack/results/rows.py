"""The rows of one victim under one attack, threat and eps, and what scores are made from."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from effattack.measure.statistics import NOTHING, Interval, median_ratio, proportion
from effattack.results.frame import CERTIFIED, KNOWLEDGE
from effattack.results.resampling import attack_success, savings
from effattack.results.union import UNION
from effattack.results.unmeasured import WIDEST

NUMBERED = 20
"""Inputs that are named by their numbers, at most."""


class Rows:
    """Per-sample rows, seeds pooled: ``rows["macs"]`` is a column, the rest are what it says.

    Beside the columns of the frame there are ``work``, ``clean_work`` and ``max_work`` (of the
    count that judges), ``right``, ``same`` and ``slow_and_wrong``, ``inside`` and ``found_by``.

    Attributes:
        frame: (rows, columns), one row per seed and input.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def __getitem__(self, column: str) -> pd.Series:
        return self.frame[column]

    def __len__(self) -> int:
        return len(self.frame)

    def first(self, column: str) -> Any:
        """What all rows share."""
        return self.frame[column].iloc[0]

    def mean(self, column: str) -> float:
        """Over all rows; NaN where there is no such column."""
        return float(self.frame[column].mean()) if column in self.frame else np.nan

    @property
    def unlike_twin(self) -> str:
        """The numbers of the inputs that an artefact decides or answers otherwise than its twin."""
        unlike = self.frame[self.frame.as_twin.eq(False)]["sample"].drop_duplicates().sort_values()
        more = len(unlike) - NUMBERED
        told = ", ".join(map(str, unlike[:NUMBERED]))
        return f"{told} and {more} more" if more > 0 else told

    @property
    def slow_and_wrong(self) -> float:
        """Share of rows that cost more than clean and are answered wrongly; NaN without work."""
        known = self.frame.work.notna() & self.frame.clean_work.notna()
        return self.mean("slow_and_wrong") if known.all() else np.nan

    def share(self, column: str) -> Interval:
        """Of inputs where a column holds; one where it holds under some seeds adds their share.

        Of those where it is told; nothing where there is no such column.
        """
        if column not in self.frame:
            return NOTHING
        told = self.frame[column].dropna().astype(float)
        inputs = told.groupby(self.frame["sample"]).mean()
        return proportion(inputs.sum(), len(inputs))

    def ratio(self, column: str) -> float:
        """Σ attacked / Σ clean of a column that has a ``clean_`` one, where both are known."""
        attacked, clean = self.frame[column], self.frame[f"clean_{column}"]
        both = attacked.notna() & clean.notna()
        return float(attacked[both].sum() / clean[both].sum()) if both.any() else np.nan

    def amplification(self, count: str) -> float:
        """(Σ attacked − Σ clean) / Σ tokens of the attacked inputs: work gained per token sent.

        NaN where the inputs are no tokens, or the victim has no such count.
        """
        needed = [count, f"clean_{count}", "tokens_sent"]
        if not {*needed} <= {*self.frame}:
            return np.nan
        attacked, clean, tokens = self.frame[needed].astype(float).sum(skipna=False)
        return float((attacked - clean) / tokens)

    @property
    def constant(self) -> bool:
        """Whether the victim's work cannot depend on the input."""
        return bool(self.frame.constant.all())

    def success(self, work: str = "work", ceiling: str = "max_work") -> float:
        """(Σ attacked − Σ clean) / (Σ ceiling − Σ clean); seeds of an input are averaged first."""
        if self.constant:
            return 0.0
        sums = self._by_input[[work, f"clean_{work}", ceiling]].sum(skipna=False)
        return float(attack_success(sums.to_numpy()))

    @property
    def savings(self) -> Interval:
        """1 − success, with its interval over inputs."""
        if self.constant:
            return Interval(1, 1, 1)
        work = self._by_input
        retained = savings(work.work, work.clean_work, work.max_work)
        if self.first("kind") == UNION:  # it never costs less than the clean input
            retained = retained._replace(high=float(np.minimum(1, retained.high)))
        return retained

    @property
    def certified_retained(self) -> float:
        """Share of the savings that no attack in the threat takes back; NaN where none is known."""
        work = self._certified
        saved = (work.certified_max_work - work.certified_clean_work).sum(skipna=False)
        kept = (work.certified_max_work - work.certified_work).sum(skipna=False)
        return float(kept / saved) if saved > 0 else np.nan

    @property
    def certified_factor(self) -> float:
        """How many clean requests the worst attacked one costs at most, in sums over inputs."""
        work = self._certified
        return float(
            work.certified_work.sum(skipna=False) / work.certified_clean_work.sum(skipna=False)
        )

    @cached_property
    def _certified(self) -> pd.DataFrame:
        return self.frame.groupby("sample")[list(CERTIFIED)].first()

    @cached_property
    def _by_input(self) -> pd.DataFrame:
        columns = ["work", "clean_work", "max_work", "macs", "clean_macs", "dense_macs"]
        return self.frame.groupby("sample")[columns].mean()

    @cached_property
    def timed(self) -> pd.DataFrame:
        """The rows whose latency was measured."""
        return self.frame.dropna(subset=["seconds", "clean_seconds"])

    @cached_property
    def seconds(self) -> pd.DataFrame:
        """Of each timed input, attacked and clean; seeds are averaged in the logarithm."""
        logs = np.log(self.timed[["seconds", "clean_seconds"]].astype(float))
        return np.exp(logs.groupby(self.timed["sample"]).mean())

    @property
    def latency(self) -> Interval:
        """Median attacked / clean; without its value where it is too wide to be a measurement."""
        found = median_ratio(self.seconds.seconds, self.seconds.clean_seconds)
        return found._replace(value=np.nan) if found.high / found.low > WIDEST else found

    @property
    def mean_seconds(self) -> float:
        """Σ attacked / Σ clean seconds of the timed inputs."""
        attacked, clean = self.seconds.seconds.sum(), self.seconds.clean_seconds.sum()
        return float(attacked / clean) if len(self.seconds) else np.nan

    @property
    def slowdowns(self) -> pd.Series:
        """Attacked / clean seconds of each timed input."""
        return self.seconds.seconds / self.seconds.clean_seconds

    @property
    def knowledge(self) -> str:
        """What the attacker sees of the victim; of a union, the most of those who found it."""
        rows = self.frame
        found = rows[rows.work > rows.clean_work] if self.first("kind") == UNION else rows
        return max(set(found.knowledge), key=KNOWLEDGE.index, default="")

    @property
    def clock(self) -> str | None:
        """Which clock, and how many inputs it timed per call, if not one."""
        if not len(self.timed):
            return None
        size = self.timed.batch_size.iloc[0]
        batches = f", batches of {size:.0f}" if size > 1 else ""
        return f"{self.timed.clock.iloc[0]}{batches}"
