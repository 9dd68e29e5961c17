"""Checks of the measurement itself, printed with every score (after AutoAttack's ``checks.py``).

A failed check does not change a score; it says why the score may not mean what it seems to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from effattack.attacks.base import glance
from effattack.attacks.naming import parse_name
from effattack.budgets import at_budget
from effattack.contract import INVARIANTS, beside_noise, check_gradients, misleading_proxies
from effattack.victim import Victim

BUDGET_SLACK = 0.02
UNEXPLAINED_FACTOR = 5.0
"""Times the explained time, and"""
UNEXPLAINED_SECONDS = 0.005
"""seconds above it: from where on time is said to be explained by no MACs."""
CHECKED = 16
"""Images that a victim is checked on; at most half of them are the user's own."""


class Check(NamedTuple):
    """The result of one self-check."""

    victim: str
    check: str
    passed: bool | None
    """None: it does not apply."""
    message: str


def check_victim(victim: Victim, images: Tensor) -> list[Check]:
    """What is checked before any attack, on a few images: the contract and determinism.

    Raises:
        ContractError: if the victim breaks the contract.
    """
    images = beside_noise(images, CHECKED)
    said = {check: check(victim, images) for check in INVARIANTS}
    blind = said.pop(check_gradients)
    limits = [sentence for sentences in said.values() for sentence in sentences]
    limits += misleading_proxies(victim, images)
    kept = f"{len(INVARIANTS)} invariants hold on {len(images)} images"
    return [
        Check(victim.name, "contract", not limits, "; ".join(limits) or kept),
        _gradients(victim, blind),
        _determinism(victim, images),
    ]


def _gradients(victim: Victim, blind: list[str]) -> Check:
    name = "gradient through every gate"
    gates = len(glance(victim).gates)
    if not gates:
        return Check(victim.name, name, None, "no gates")
    if blind:
        return Check(victim.name, name, False, "; ".join(blind))
    return Check(victim.name, name, True, f"non-zero for all {gates} gates")


def _determinism(victim: Victim, images: Tensor) -> Check:
    name = "deterministic forward"
    with torch.no_grad():
        same = all(torch.equal(victim(image), victim(image)) for image in images.split(1))
    message = (
        f"{len(images)} images ran twice alike"
        if same
        else "the same image gave different logits twice: scores are one draw of many"
    )
    return Check(victim.name, name, same, message)


def check_scores(scores: pd.DataFrame, kinds: dict[str, str]) -> list[Check]:
    """What can be checked afterwards: attacks against noise, queries and other budgets.

    Args:
        scores: the score table.
        kinds: attack name -> "compute", "accuracy" or "control".
    """
    compute = scores[scores.attack.map(kinds).eq("compute") & ~scores.constant]
    return [
        *_against_noise(scores, compute),
        *_against_queries(compute),
        *_against_budgets(compute),
    ]


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

    Explained is the victim's median time, and as many times that as an input has MACs more than
    the median. Of an input the median over its rows counts: every attack times the clean one anew.
    """
    timed = samples[samples.seconds.notna() & (samples.batch_size == 1)]
    told = []
    for victim, rows in timed.groupby("victim", sort=False):
        arms = [
            rows.groupby("sample")[["clean_seconds", "clean_macs"]].median().to_numpy(),
            rows.groupby(["sample", "macs"]).seconds.median().reset_index()[["seconds", "macs"]],
        ]
        seconds, macs = np.concatenate(arms).T
        explained = np.median(seconds) * np.maximum(1, macs / np.median(macs))
        over = (seconds > UNEXPLAINED_FACTOR * explained) & (
            seconds - explained > UNEXPLAINED_SECONDS
        )
        if over.any():
            worst = int((seconds / explained * over).argmax())
            told.append(
                f"{victim}: time that no MACs explain: {over.sum()} of {len(over)} timed inputs "
                f"take more than {UNEXPLAINED_FACTOR:g} times as long as their MACs let expect "
                f"(at worst {seconds[worst] * 1e3:.3g} ms against {explained[worst] * 1e3:.3g} "
                "ms): look for work that the counter cannot see, or for a disturbed machine"
            )
    return told


def _against_noise(scores: pd.DataFrame, compute: pd.DataFrame) -> Iterator[Check]:
    noise = scores[scores.attack == "noise"].set_index(["victim", "threat", "eps"]).macs_ratio
    for row in compute.itertuples():
        if (row.victim, row.threat, row.eps) in noise.index:
            random = noise[row.victim, row.threat, row.eps]
            passed = bool(row.macs_ratio >= random)
            yield Check(
                row.victim,
                f"{row.attack} is stronger than noise",
                passed,
                f"MACs ×{row.macs_ratio:.3f} against ×{random:.3f} of noise at "
                f"{at_budget(row.threat, row.eps)}"
                + ("" if passed else ": the attack is broken or masked"),
            )


def _against_queries(compute: pd.DataFrame) -> Iterator[Check]:
    queried = compute.attack.map(lambda attack: parse_name(attack)[0]) == "QueryAttack"
    for (victim, threat, eps), rows in compute.groupby(["victim", "threat", "eps"], sort=False):
        blind, seeing = rows[queried[rows.index]], rows[~queried[rows.index]]
        if len(blind) and len(seeing):
            best = seeing.loc[seeing.macs_ratio.idxmax()]
            passed = bool(blind.macs_ratio.max() <= best.macs_ratio)
            yield Check(
                str(victim),
                "no query search beats the white-box attacks",
                passed,
                f"MACs ×{blind.macs_ratio.max():.3f} by queries against ×{best.macs_ratio:.3f} of "
                f"{best.attack} at {at_budget(str(threat), float(eps))}"
                + ("" if passed else ": the gates mask their gradients"),
            )


def _against_budgets(compute: pd.DataFrame) -> Iterator[Check]:
    for (victim, attack, _), rows in compute.groupby(["victim", "attack", "threat"], sort=False):
        ordered = rows.sort_values("eps").attack_success
        if len(ordered) > 1:
            drop = float((ordered.cummax() - ordered).max())
            passed = drop <= BUDGET_SLACK
            yield Check(
                str(victim),
                f"{attack} grows with the budget",
                passed,
                f"attack success falls by {drop:.3f} at most as eps rises",
            )
