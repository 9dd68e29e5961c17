"""Thresholds chosen under attack: the least work on attacked inputs at a stated accuracy.

An attacker answers to whatever is chosen. So the choice is made in rounds: of all candidates, the
one with least work on the attacked inputs known so far, each input at its worst; then the victim is
attacked at this choice, and what was found is known as well. It ends where an attack changes the
choice no more. (Robust optimisation by cutting planes: Mutapcic and Boyd, 2009.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from effattack.attacks import Slowdown
from effattack.errors import ContractError, NotApplicable
from effattack.hardening.inner import all_answers
from effattack.threats import ArrayThreat
from effattack.victim import Victim
from effattack.victim.structure import Exits, Models
from effattack.victim.undisturbed import undisturbed

MOST = 20_000
"""Candidates: with one threshold per stage, those of each stage are fewer."""
ROUNDS = 5
FAR = 2.0**20
"""Beyond any difference of logits."""
BATCH = 256


class Thresholded(Protocol):
    """A rule that compares a number with thresholds in [0, ``highest``]."""

    thresholds: float | tuple[float, ...]
    highest: float

    def go_on(self, stage_logits: Tensor) -> Tensor:
        """Logits of the stages so far (B, stages, classes) -> the decision (B,) bool."""
        ...


class Wanted(NamedTuple):
    """What a choice has to keep, on held-out inputs."""

    accuracy: float
    """At least."""
    work: float
    """Clean work of an input, at most."""
    onward: float = 0.0
    """Share of clean inputs that go on past the first stage, at least."""


@dataclass(frozen=True)
class Choice:
    """Chosen thresholds, and what they do on held-out inputs."""

    thresholds: float | tuple[float, ...]
    accuracy: float
    work: float
    """Clean, per input."""
    onward: float
    attacked: float
    """Work per attacked input, each at its worst of all known."""
    rounds: int
    """How often the victim was attacked."""
    tried: int
    """Candidates."""


def rule_of(victim: Victim) -> Thresholded | None:
    """The rule of a victim of stages in a row, if it has thresholds."""
    rule: Any = getattr(victim.structure(), "criterion", None)
    return rule if hasattr(rule, "thresholds") and not rule.earliest else None


def expect_thresholds(victim: Victim) -> Thresholded:
    """The same.

    Raises:
        NotApplicable: for a victim without.
    """
    rule = rule_of(victim)
    if rule is None:
        raise NotApplicable(
            f"{victim.name} shows no thresholds (victim.structure() has no criterion with any): "
            "choosing them applies to early exits and cascades; the other methods train"
        )
    return rule


class Stages(NamedTuple):
    """What a victim of stages in a row said about some inputs, whatever it decided."""

    logits: Tensor
    """(B, stages, classes)."""
    unsure: Tensor
    """(B, classes): the answer where no stage stopped."""


def choose(
    victim: Victim,
    inputs: Tensor,
    labels: Tensor,
    threat: ArrayThreat,
    wanted: Wanted,
    *,
    attacked: int = 64,
    seed: int = 0,
) -> Choice | None:
    """Set the thresholds of a victim to the best under attack; None where none is good enough.

    One threshold for all stages stays one; one per stage stays one per stage. Candidates are evenly
    spaced, those that it has among them.

    Args:
        victim: of stages in a row; its thresholds are changed, or left where none is chosen.
        inputs, labels: held-out.
        threat: bound to its domain.
        wanted: what is to be kept on them.
        attacked: so many of the inputs are attacked, the first ones.
        seed: of the attacks.

    Raises:
        NotApplicable: for a victim without thresholds.
        ContractError: if its work is not that of the stages that it runs.
    """
    rule, shipped = expect_thresholds(victim), expect_thresholds(victim).thresholds
    structure: Any = victim.structure()
    spent = torch.tensor(structure.costs, dtype=torch.float64)
    stages = _stages(victim, structure, inputs)
    candidates = list(candidates_of(rule, stages.logits))
    clean = outcomes(rule, candidates, stages, spent, labels)
    _expect_closed_form(victim, inputs, candidates.index(shipped), clean)
    good = (
        (clean.right.double().mean(1) >= wanted.accuracy - 1e-9)
        & (clean.work.mean(1) <= wanted.work * (1 + 1e-9))
        & (clean.onward.double().mean(1) >= wanted.onward - 1e-9)
    )
    if not good.any():
        return None
    worst, best, rounds = clean.work[:, :attacked].clone(), -1, 0
    while rounds < ROUNDS:
        found = _best(worst, clean, good)
        if found == best:
            break
        best, rounds = found, rounds + 1
        rule.thresholds = candidates[best]
        attack = Slowdown(victim, threat=threat, seed=seed + rounds)
        inputs_found = attack(inputs[:attacked], labels[:attacked])
        told = _stages(victim, structure, inputs_found)
        worst = worst.maximum(outcomes(rule, candidates, told, spent, labels[:attacked]).work)
    best = _best(worst, clean, good)
    rule.thresholds = candidates[best]
    return Choice(
        candidates[best],
        clean.right[best].double().mean().item(),
        clean.work[best].mean().item(),
        clean.onward[best].double().mean().item(),
        worst[best].mean().item(),
        rounds,
        len(candidates),
    )


def _best(worst: Tensor, clean: Outcomes, good: Tensor) -> int:
    """Least attacked work; of equal ones the least clean work, then the most right answers."""
    attacked = worst.mean(1).tolist()
    work, right = clean.work.mean(1).tolist(), clean.right.double().mean(1).tolist()
    rows = good.nonzero()[:, 0].tolist()
    return min(rows, key=lambda row: (attacked[row], work[row], -right[row]))


def candidates_of(rule: Thresholded, said: Tensor) -> Iterator[float | tuple[float, ...]]:
    """Evenly spaced thresholds, and those that the rule has: one, or one per gate.

    Args:
        rule: whose they are.
        said: logits (B, stages, classes), on which they are to differ.
    """
    gates, shared = said.shape[1] - 1, not isinstance(rule.thresholds, tuple)
    each = 100 if shared else min(100, max(2, int(MOST ** (1 / gates))))
    top = _reach(rule, said)
    grid = [top * k / each for k in range(1, each)]
    if isinstance(rule.thresholds, tuple):
        yield from product(*(sorted({*grid, own}) for own in rule.thresholds))
    else:
        yield from sorted({*grid, rule.thresholds})


def _reach(rule: Thresholded, said: Tensor) -> float:
    """The highest threshold; where there is none, one that decides as all higher ones do."""
    if math.isfinite(rule.highest):
        return rule.highest

    def decided(threshold: float) -> list[list[bool]]:
        seen = (said[:, : k + 1] for k in range(said.shape[1] - 1))
        return [_goes_on(rule, threshold, each).tolist() for each in seen]

    top, settled = 1.0, decided(FAR)
    while top < FAR and decided(top) != settled:
        top *= 2
    return top


class Outcomes(NamedTuple):
    """What every candidate does with every input, each (candidates, B)."""

    work: Tensor
    right: Tensor
    onward: Tensor


def outcomes(
    rule: Thresholded,
    candidates: list[float | tuple[float, ...]],
    stages: Stages,
    spent: Tensor,
    labels: Tensor,
) -> Outcomes:
    """What candidates do with inputs.

    Args:
        rule: decides; its thresholds are as before afterwards.
        candidates: thresholds.
        stages: of the inputs.
        spent: (stages,) float64, work of stopping at each.
        labels: (B,).
    """
    gates, rows = len(spent) - 1, torch.arange(len(labels))
    answers = torch.cat([stages.logits[:, :-1], stages.unsure[:, None]], dim=1).argmax(2).cpu()
    right = answers == labels.cpu()[:, None]
    known: dict[tuple[int, float], Tensor] = {}
    found = []
    for candidate in candidates:
        onward = torch.ones(len(labels), dtype=torch.bool)
        taken = torch.zeros(len(labels), dtype=torch.long)
        for k in range(gates):
            own = candidate[k] if isinstance(candidate, tuple) else candidate
            if (k, own) not in known:
                known[k, own] = _goes_on(rule, own, stages.logits[:, : k + 1])
            onward = onward & known[k, own]
            taken += onward
        found.append(taken)
    stopped = torch.stack(found)
    return Outcomes(spent[stopped], right[rows, stopped], stopped > 0)


def _goes_on(rule: Thresholded, threshold: float, seen: Tensor) -> Tensor:
    """The decision (B,) of a rule under another threshold."""
    before = rule.thresholds
    rule.thresholds = threshold
    try:
        return rule.go_on(seen).cpu()
    finally:
        rule.thresholds = before


def _stages(victim: Victim, structure: Exits | Models, inputs: Tensor) -> Stages:
    with undisturbed(victim), torch.no_grad():
        logits = torch.cat([all_answers(victim.trace(some)) for some in inputs.split(BATCH)])
    unsure = getattr(structure, "unsure", lambda said: said[:, -1])
    return Stages(logits, unsure(logits))


def _expect_closed_form(victim: Victim, inputs: Tensor, row: int, clean: Outcomes) -> None:
    """The stages reached and their work must be what the trace says."""
    with undisturbed(victim), torch.no_grad():
        macs = torch.cat([victim.trace(some).macs for some in inputs.split(BATCH)]).cpu()
    if not torch.allclose(macs, clean.work[row], rtol=1e-9):
        raise ContractError(
            f"{victim.name}: its trace does other work than structure().costs says of the stages "
            "where it stops, so that thresholds cannot be compared: correct one of them"
        )
