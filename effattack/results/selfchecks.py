"""Checks of the measurement itself, printed with every score (after AutoAttack's ``checks.py``).

A failed check does not change a score; it says why the score may not mean what it seems to.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from effattack.budgets import at_budget
from effattack.domains import Batch
from effattack.measure.statistics import paired_mean
from effattack.results.claims import claims
from effattack.results.currency import unit, with_work
from effattack.results.limits import ATTACKS
from effattack.results.union import UNION, with_unions
from effattack.results.unmeasured import UNKNOWN_WORK
from effattack.victim import Victim
from effattack.victim.checks import Check as Invariant
from effattack.victim.checks import (
    beside_noise,
    check_gradients,
    held_to,
    misleading_proxies,
)
from effattack.victim.undisturbed import glance

BUDGET_SLACK = 0.02
UNEXPLAINED_FACTOR = 5.0
"""Times the explained time, and"""
UNEXPLAINED_SECONDS = 0.005
"""seconds above it: from where on time is said to be explained by no MACs."""
CHECKED = 16
"""Inputs that a victim is checked on; at most half of them are the user's own."""
FEW = 4
"""The same of a remote victim, each of whose answers is a request."""


class Check(NamedTuple):
    """The result of one self-check."""

    victim: str
    check: str
    passed: bool | None
    """None: it does not apply."""
    message: str


def check_victim(victim: Victim, inputs: Batch) -> list[Check]:
    """What is checked before any attack, on a few inputs: the contract and determinism.

    The contract is about a victim's two paths: of an artefact, about those of its twin. Where so
    many do not fit in memory together, on half of them, and so on.

    Raises:
        ContractError: if the victim breaks the contract.
    """
    count = FEW if victim.remote else CHECKED
    inputs = beside_noise(inputs[:count], count, victim.domain)
    while True:
        try:
            said = _said(victim, inputs)
            break
        except torch.OutOfMemoryError:
            if len(inputs) == 1:
                raise
            inputs = inputs[::2]
    blind = said.pop(check_gradients, [])
    limits = [sentence for sentences in said.values() for sentence in sentences]
    checked = victim.checked
    if checked is not None:
        limits += misleading_proxies(checked, inputs)
    of = "" if checked is victim else " of its twin and the artefact" if checked else " of it alone"
    kept = f"{len(said) + (checked is not None)} invariants{of} hold on {len(inputs)} "
    kept += victim.domain.nouns
    return [
        Check(victim.name, "contract", not limits, "; ".join(limits) or kept),
        _gradients(victim, blind),
        _determinism(victim, inputs),
    ]


def _said(victim: Victim, inputs: Batch) -> dict[Invariant, list[str]]:
    """What each check says: those of the two paths, and of an artefact its own."""
    return {check: check(on, inputs) for check, on in held_to(victim)}


def _gradients(victim: Victim, blind: list[str]) -> Check:
    name = "gradient through every gate"
    gates = len(glance(victim).gates)
    if not gates:
        return Check(victim.name, name, None, "no gates")
    if not (victim.domain.smooth or victim.lifts):
        none = f"{victim.domain.nouns} have no neighbours, so that no gradient reaches them"
        return Check(victim.name, name, None, none)
    if blind:
        return Check(victim.name, name, False, "; ".join(blind))
    return Check(victim.name, name, True, f"non-zero for all {gates} gates")


def _determinism(victim: Victim, inputs: Batch) -> Check:
    name, noun = "deterministic forward", victim.domain.noun
    with torch.no_grad():
        twice = [(victim(one), victim(one)) for one in victim.domain.singles(inputs)]
    same = all(victim.task.close(first, second, 0.0).all() for first, second in twice)
    message = (
        f"{len(inputs)} {victim.domain.nouns} ran twice alike"
        if same
        else f"the same {noun} gave different outputs twice: scores are one draw of many"
    )
    return Check(victim.name, name, same, message)


def check_scores(samples: pd.DataFrame, scores: pd.DataFrame) -> list[Check]:
    """What can be checked afterwards: every row against the attacks, and budgets against budgets.

    Rows are compared input by input, and one beats another only where the 95 % interval of the
    paired difference lies above 0.

    Args:
        samples: the per-sample frame.
        scores: its score table.
    """
    moving = with_unions(samples[~samples.constant.astype(bool)])
    found = [
        Check(str(victim), "attacks against controls", None, UNKNOWN_WORK)
        for victim in moving[moving.clean_work.isna()].victim.unique()
    ]
    moving = moving[moving.work.notna() & moving.clean_work.notna()]
    for victim, rows in moving[moving.kind != UNION].groupby("victim", sort=False):
        cells = [Costs.of(own) for _, own in rows.groupby(["attack", "threat", "eps"], sort=False)]
        found += _against_controls(str(victim), cells)
        found += _against_noise(str(victim), cells)
        found += _against_queries(str(victim), cells)
    found += [Check(*claim) for claim in claims(samples)]
    return found + list(_against_budgets(scores[(scores.kind == "compute") & ~scores.constant]))


def work_outside(samples: pd.DataFrame) -> list[str]:
    """One sentence per victim and block of work declared outside the counter, with its time."""
    declared = samples[samples.outside.notna()]
    told = []
    for victim, rows in declared.groupby("victim", sort=False):
        seconds = pd.DataFrame([*rows.outside.map(json.loads)])
        told += [
            f"{victim}: {mean * 1e3:.3g} ms per input in {name}, declared as outside the counter: "
            "its MACs are not counted"
            for name, mean in (seconds.sum() / len(rows)).items()
        ]
    return told


def unexplained_time(samples: pd.DataFrame) -> list[str]:
    """One sentence per victim with inputs that take far longer than their MACs explain.

    Explained is the victim's median time, and as many times that as an input has work more than
    the median, in the count that judges. Of an input the median over its rows counts: every attack
    times the clean one anew.
    """
    samples = with_work(samples)
    samples = samples[samples.work.notna() & samples.clean_work.notna()]
    timed = samples[samples.seconds.notna() & (samples.batch_size == 1)]
    told = []
    for victim, rows in timed.groupby("victim", sort=False):
        arms = [
            rows.groupby("sample")[["clean_seconds", "clean_work"]].median().to_numpy(),
            rows.groupby(["sample", "work"]).seconds.median().reset_index()[["seconds", "work"]],
        ]
        seconds, work = np.concatenate(arms).T
        explained = np.median(seconds) * np.maximum(1, work / np.median(work))
        over = (seconds > UNEXPLAINED_FACTOR * explained) & (
            seconds - explained > UNEXPLAINED_SECONDS
        )
        if over.any():
            worst = int((seconds / explained * over).argmax())
            count = unit(rows.iloc[0])
            told.append(
                f"{victim}: time that no {count} explain: {over.sum()} of {len(over)} timed inputs "
                f"take more than {UNEXPLAINED_FACTOR:g} times as long as their {count} let expect "
                f"(at worst {seconds[worst] * 1e3:.3g} ms against {explained[worst] * 1e3:.3g} "
                "ms): look for work that the counter cannot see, or for a disturbed machine"
            )
    return told


class Costs(NamedTuple):
    """What every image costs under one row of the score table."""

    attack: str
    kind: str
    threat: str
    eps: float
    inside: bool
    currency: str
    """What judges: "MACs", "passes"."""
    knowledge: str
    work: pd.Series
    """By input, averaged over seeds."""
    clean: pd.Series

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Costs:
        first, inputs = rows.iloc[0], rows.groupby("sample")
        return cls(
            first.attack, first.kind, first.threat, first.eps, bool(first.inside), unit(first),
            first.knowledge, inputs.work.mean(), inputs.clean_work.mean(),
        )  # fmt: skip

    @property
    def budget(self) -> tuple[str, float]:
        return self.threat, self.eps

    @property
    def ratio(self) -> float:
        return float(self.work.sum() / self.clean.sum())

    @property
    def moved(self) -> bool:
        return bool((self.work != self.clean).any())

    def __str__(self) -> str:
        where = "" if self.threat == "none" else f" at {at_budget(self.threat, self.eps)}"
        return f"×{self.ratio:.3f} of {self.attack}{where}"


def _beats(one: Costs, other: Costs) -> tuple[bool | None, str]:
    """Whether one row does *not* cost more than another beyond chance, and both in words.

    None where that cannot be told: where neither moved any work, or the inputs are too few.
    """
    said = f"{one.currency} {one} against {other}"
    if not one.moved and not other.moved:
        return None, f"{said}: neither moved any, so nothing shows whether the attack works"
    both = pd.concat([one.work, other.work], axis=1).dropna()
    by = paired_mean(both.iloc[:, 0], both.iloc[:, 1])
    if isnan(by.low):
        return None, f"{said}: {len(both)} inputs are too few to tell"
    return bool(by.low <= 0), said


def _dearest(cells: Iterable[Costs]) -> Costs | None:
    return max(cells, key=lambda cell: cell.ratio, default=None)


def _against_controls(victim: str, cells: Sequence[Costs]) -> Iterator[Check]:
    """Every control, whatever its budget, beside the attack that got furthest inside one."""
    worst = _dearest(cell for cell in cells if cell.inside and cell.kind in ATTACKS)
    for control in cells:
        if worst is not None and control.kind == "control":
            passed, said = _beats(control, worst)
            where = "" if control.inside else ", though outside the budget"
            why = f": weak attacks, or gates that mask their gradients{where}"
            said += why if passed is False else ""
            yield Check(victim, f"{control.attack} does not beat the attacks", passed, said)


def _against_noise(victim: str, cells: Sequence[Costs]) -> Iterator[Check]:
    noises = {cell.budget: cell for cell in cells if cell.attack == "noise"}
    for cell in cells:
        if cell.kind == "compute" and cell.budget in noises:
            passed, said = _beats(noises[cell.budget], cell)
            said += ": the attack is broken or masked" if passed is False else ""
            yield Check(victim, f"{cell.attack} is stronger than noise", passed, said)


def _against_queries(victim: str, cells: Sequence[Costs]) -> Iterator[Check]:
    compute = [cell for cell in cells if cell.kind == "compute"]
    for budget in dict.fromkeys(cell.budget for cell in compute):
        here = [cell for cell in compute if cell.budget == budget]
        blind = _dearest(cell for cell in here if cell.knowledge == "queries")
        seeing = _dearest(cell for cell in here if cell.knowledge == "white box")
        if blind and seeing:
            passed, said = _beats(blind, seeing)
            said += ": the gates mask their gradients" if passed is False else ""
            yield Check(victim, "no query search beats the white-box attacks", passed, said)


def _against_budgets(compute: pd.DataFrame) -> Iterator[Check]:
    for (victim, attack, _), rows in compute.groupby(["victim", "attack", "threat"], sort=False):
        ordered = rows.sort_values("eps").attack_success.dropna()
        if len(ordered) > 1:
            drop = float((ordered.cummax() - ordered).max())
            passed = drop <= BUDGET_SLACK
            yield Check(
                str(victim),
                f"{attack} grows with the budget",
                passed,
                f"attack success falls by {drop:.3f} at most as eps rises",
            )
