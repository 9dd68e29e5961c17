"""An evaluation against a baseline: what changed beyond the noise.

Both were made on the same images, so images are compared pair by pair: each change has an interval,
and a change whose interval contains "none" is no change. The intervals of one victim hold together
(Bonferroni), so that many comparisons raise no more alarms than one. Fewer than 6 images carry no
interval: nothing is judged there, and a note says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan, nan
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from effattack.budgets import at_budget
from effattack.errors import UsageError
from effattack.measure.statistics import CONFIDENCE, Floats, Interval, median_ratio
from effattack.results.baseline_schema import SCORES
from effattack.results.baselines import Baseline, Record, Series
from effattack.results.editions import grown, split
from effattack.results.resampling import (
    FEWEST,
    Statistic,
    compared,
    interval,
    macs_ratio,
    mean,
    savings_retained,
)
from effattack.results.score import Score
from effattack.results.table import known

if TYPE_CHECKING:
    from effattack.results.evaluation import Evaluation

Judged = Callable[[float], Interval]
"""Confidence -> the interval of a change."""


class Change(NamedTuple):
    """One score before and after."""

    victim: str
    attack: str
    threat: str
    eps: float
    score: str
    before: float
    after: float
    by: Interval
    """``after - before`` of shares, ``after / before`` of the rest; NaN bounds: not judged."""

    @property
    def of(self) -> Score:
        """What changed."""
        return known()[self.score]

    @property
    def moved(self) -> bool:
        """Whether it changed beyond the noise."""
        return self.by.excludes(self._none)

    @property
    def worse(self) -> bool:
        """Whether it changed for the worse beyond the noise."""
        return self.by.high < self._none if self.of.better == "more" else self.by.low > self._none

    @property
    def _none(self) -> int:
        """No change."""
        return 0 if self.of.share else 1

    def __str__(self) -> str:
        sign = "{:+.3f}" if self.of.share else "×{:.3f}"
        number = "{:,.0f}" if self.of.shown.form == "macs" else "{:.3f}"
        bounds = "no interval, not judged"
        if not isnan(self.by.low):
            bounds = f"interval {sign.format(self.by.low)} to {sign.format(self.by.high)}"
        under = _under(self.attack, self.threat, self.eps)
        return (
            f"{self.victim} under {under}: {self.of.words} "
            f"{number.format(self.before)} → {number.format(self.after)}, "
            f"{sign.format(self.by.value)} ({bounds})"
        )


@dataclass(frozen=True)
class Comparison:
    """All changes, and what could not be compared."""

    changes: list[Change]
    notes: list[str]

    @property
    def moved(self) -> list[Change]:
        """Changes in either direction beyond the noise."""
        return [change for change in self.changes if change.moved]

    @property
    def judged(self) -> list[Change]:
        """Changes that carry an interval."""
        return [change for change in self.changes if not isnan(change.by.low)]

    @property
    def worse(self) -> list[Change]:
        """Regressions."""
        return [change for change in self.changes if change.worse]


def compare(evaluation: Evaluation, baseline: Baseline, name: str) -> Comparison:
    """Clean images, compute attacks and unions of an evaluation's victims against a baseline.

    Latency and energy are compared only where the machine is the same; MACs and accuracy always.

    Args:
        evaluation: what was found now.
        baseline: what was found then.
        name: of the baseline, for messages.

    Raises:
        UsageError: if the baseline lacks a victim, or was made on another one or other images.
    """
    now = Baseline.of(evaluation)
    timed, notes = _same_machine(now, baseline, name)
    changes = []
    for victim, record in now.victims.items():
        then = _same_victim(victim, record, baseline, name)
        pairs = list(_pairs(record, then))
        notes += _unpaired(victim, record, then, name) + _few(victim, record, name)
        if pairs and pairs[0][0].attack != "clean":
            notes.append(f"{victim}: not compared, because its clean images did not run now")
        elif pairs:
            changes += _changes(victim, pairs, (record, then), timed)
    attacks, before = now.made["attacks"], baseline.made.get("attacks", [])
    return Comparison(changes, [*notes, *_other_settings(attacks, before, name)])


def _other_settings(now: Sequence[str], then: Sequence[str], name: str) -> Iterator[str]:
    """Attacks that are not what they were: of another edition, or with other options."""
    yield from grown(now, then, name)
    here, there = ({split(attack)[0] for attack in attacks} for attacks in (now, then))
    names = [{attack.partition("(")[0] for attack in some} for some in (here - there, there)]
    if changed := sorted(names[0] & names[1]):
        yield f"settings of {', '.join(changed)} are not those of {name}"


def _same_machine(now: Baseline, then: Baseline, name: str) -> tuple[bool, list[str]]:
    here, there = now.made["machine"], then.made.get("machine", {})
    if differ := [key for key in here if here[key] != there.get(key)]:
        facts = "; ".join(f"{key} {there.get(key)!r} there, {here[key]!r} here" for key in differ)
        return False, [f"latency and energy not compared with {name}: another machine ({facts})"]
    return True, []


def _same_victim(victim: str, record: Record, baseline: Baseline, name: str) -> Record:
    if victim not in baseline.victims:
        raise UsageError(
            f"baseline {name} holds {', '.join(baseline.victims)}, not {victim}: compare with "
            "another, or save one of this victim with --save"
        )
    then = baseline.victims[victim]
    for fact in ("family", "input_shape", "num_classes", "currency"):
        before, after = getattr(then, fact), getattr(record, fact)
        if before != after:
            raise UsageError(
                f"baseline {name} is of another victim called {victim} ({fact.replace('_', ' ')} "
                f"{before} there, {after} here): give the victims different names"
            )
    if then.data != record.data:
        raise UsageError(
            f"baseline {name} scored {victim} on other images ({len(then.series[0].macs)} there, "
            f"{len(record.series[0].macs)} here): use the same data and number of samples, or save "
            "it again with --save"
        )
    return then


def _key(series: Series) -> tuple[str, str, float]:
    return series.attack, series.threat, round(series.eps, 9)


def _under(attack: str, threat: str, eps: float) -> str:
    return attack if threat == "none" else f"{attack} at {at_budget(threat, eps)}"


def _pairs(now: Record, then: Record) -> Iterator[tuple[Series, Series]]:
    """Each compared series now and then; ``clean`` first.

    A union is compared where the same rows made it, as more attacks find more; one that is the
    doing of a single attack is compared as that attack.
    """
    before = {_key(series): series for series in then.series}
    kinds = _compared_kinds(now, then)
    found: list[tuple[Series, Series]] = []
    for series in sorted(now.series, key=lambda series: series.attack != "clean"):
        if (series.attack == "clean" or series.kind in kinds) and _key(series) in before:
            pair = series, before[_key(series)]
            if series.kind == "union" and any(map(partial(_alike, pair), found)):
                continue
            found.append(pair)
            yield pair


def _alike(pair: tuple[Series, Series], other: tuple[Series, Series]) -> bool:
    return all(
        (mine.macs, mine.correct) == (theirs.macs, theirs.correct)
        for mine, theirs in zip(pair, other, strict=True)
    )


def _compared_kinds(now: Record, then: Record) -> tuple[str, ...]:
    here, there = ({_key(s) for s in r.series if s.kind != "union"} for r in (now, then))
    return ("compute", "union") if here == there else ("compute",)


def _unpaired(victim: str, now: Record, then: Record, name: str) -> list[str]:
    kinds = _compared_kinds(now, then)
    here, there = ({_key(s) for s in r.series if s.kind in kinds} for r in (now, then))
    new = ", ".join(_under(*key) for key in sorted(here - there))
    gone = ", ".join(_under(*key) for key in sorted(there - here))
    notes = [f"{victim}: {new} not in {name}, nothing to compare with"] if new else []
    if "union" not in kinds and not new and not gone:
        notes.append(f"{victim}: the union was not compared: other attacks than in {name} made it")
    return notes + ([f"{victim}: {gone} of {name} did not run now"] if gone else [])


def _few(victim: str, record: Record, name: str) -> list[str]:
    images = len(record.series[0].macs)
    if images >= FEWEST:
        return []
    return [
        f"{victim}: {images} images are too few to judge a change since {name}: score at least "
        f"{FEWEST}, and save it again with --save"
    ]


def _changes(
    victim: str,
    pairs: list[tuple[Series, Series]],
    records: tuple[Record, Record],
    timed: bool,
) -> list[Change]:
    """The changes of one victim, with intervals that hold together."""
    asked: list[tuple[Series, Series, str, Judged]] = []
    for now, then in pairs:
        right = _difference(mean, [now.correct], [then.correct])
        asked.append((now, then, "accuracy", right))
        if now.capped and then.capped:
            hit = _difference(mean, [now.capped], [then.capped])
            asked.append((now, then, "cap_hit_rate", hit))
        if now.attack == "clean":
            asked.append((now, then, "macs", _quotient(mean, [now.macs], [then.macs])))
            continue
        shares = [
            _shares(series, clean, record)
            for series, clean, record in zip((now, then), pairs[0], records, strict=True)
        ]
        if any(isnan(savings_retained(np.mean(each, axis=1))) for each in shares):
            after, before = (
                (one.macs, clean.macs) for one, clean in zip((now, then), pairs[0], strict=True)
            )
            asked.append((now, then, "macs_ratio", _quotient(macs_ratio, after, before)))
        else:
            asked.append((now, then, "savings_retained", _difference(savings_retained, *shares)))
        if timed and now.slowdown and len(now.slowdown) == len(then.slowdown):
            asked.append((now, then, "latency_ratio", partial(_latency, now, then)))
        asked += [
            (now, then, score, _figures(score, now, then)) for score in _alone(now, then, timed)
        ]
    held = 1 - (1 - CONFIDENCE) / len(asked)
    return [
        Change(victim, *_key(now), score, then.scores[score], now.scores[score], by(held))
        for now, then, score, by in asked
    ]


def _shares(series: Series, clean: Series, record: Record) -> Floats:
    """(3, n) what :func:`savings_retained` takes, in units of the max."""
    spent, before = series.work or series.macs, clean.work or clean.macs
    most = np.array(series.ceiling or [record.max_macs] * len(spent))
    return np.array([spent, before, most]) / most.max()


def _alone(now: Series, then: Series, timed: bool) -> Iterator[str]:
    """Scores of which one figure is known each, and no value per input."""
    for score in now.scores:
        told = not isnan(now.scores[score] + then.scores.get(score, nan))
        if told and (
            (score == "energy_ratio" and timed) or (score not in SCORES and score in known())
        ):
            yield score


def _difference(of: Statistic, now: ArrayLike, then: ArrayLike) -> Judged:
    return partial(_interval, lambda after, before: of(after) - of(before), now, then)


def _quotient(of: Statistic, now: ArrayLike, then: ArrayLike) -> Judged:
    return partial(_interval, lambda after, before: of(after) / of(before), now, then)


def _interval(
    by: Callable[[Floats, Floats], Floats], now: ArrayLike, then: ArrayLike, confidence: float
) -> Interval:
    """Of two lists of k numbers per image, (k, n) each."""
    after, before = np.transpose(now), np.transpose(then)

    def change(means: Floats) -> Floats:
        return by(*np.split(means, 2, axis=-1))

    return interval(change, compared(change, after, before), confidence)


def _latency(now: Series, then: Series, confidence: float) -> Interval:
    return median_ratio(now.slowdown, then.slowdown, confidence=confidence)


def _figures(score: str, now: Series, then: Series) -> Judged:
    """One figure each, so that there is no interval."""
    after, before = now.scores[score], then.scores[score]
    by = after - before if known()[score].share else np.divide(after, before)
    return lambda confidence: Interval(float(by), nan, nan)
