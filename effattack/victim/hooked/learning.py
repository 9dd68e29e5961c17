"""What trial runs tell of decisions: their units, what they are worth, and what they hide.

A decision that has a ``threshold`` is forced shut, all others open, and what that saves is counted;
another one is worth the MACs of the modules that it spares.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from effattack.errors import EffattackError, GradientError, UsageError, first_line
from effattack.victim.hooked.decision import Decision
from effattack.victim.hooked.passes import run
from effattack.victim.hooked.spares import Spares, check_idle, check_spares
from effattack.victim.hooked.trials import Trial, Trials
from effattack.victim.rounding import margin_slack


class Learnt(NamedTuple):
    """What trial runs tell of a decision."""

    cost: float
    """MACs that opening one unit makes possible."""
    units: int
    """The most that it can have."""
    hides: frozenset[str]
    """Decisions that are not reached where it saves; known of those that can be forced."""
    logits: bool
    """Its tensor is an answer in the classes of the model."""


def learn(trials: Trials, spares: Spares) -> dict[str, Learnt]:
    """By the names of the decisions.

    Raises:
        UsageError: where a decision is not what it is said to be.
        GradientError: where no gradient from one reaches the input.
    """
    check_spares(trials, spares)
    learnt: dict[str, Learnt] = {}
    for decision in trials.decisions:
        name, seen, count = decision.name, trials.reaching(decision), _units(decision, trials)
        if name in trials.forcible:
            shut = _shut(decision, seen, trials)
            check_idle(name, shut.spent, spares)
            saved = seen.macs - shut.macs
            hides = frozenset(seen.passed.tensors.keys() - shut.passed.tensors.keys())
        else:
            for trial in trials.natural:
                if _saves(decision, trial):
                    check_idle(name, trial.spent, spares)
            saved, hides = sum(map(trials.macs_of, spares[name])), frozenset()
            if count != 1:  # those before it may have cut it short
                before = [other.units for other in learnt.values()]
                count = max(1, *before, *(_seen(decision, trial) for trial in trials.natural))
        learnt[name] = Learnt(
            cost=saved / count,
            units=count,
            hides=hides,
            logits=seen.passed.tensors[name].shape == seen.passed.logits.shape,
        )
    return learnt


def _seen(decision: Decision, trial: Trial) -> int:
    """Units that a decision had; 0 where it was not reached."""
    tensor = trial.passed.tensors.get(decision.name)
    return 0 if tensor is None else decision.rule.decide(tensor).margin.numel()


def _saves(decision: Decision, trial: Trial) -> bool:
    """Whether it saved all that it can, beyond rounding."""
    if decision.name not in trial.passed.tensors:
        return False
    margin, active = decision.rule.decide(trial.passed.tensors[decision.name])
    near = margin.abs() <= margin_slack(margin.dtype)
    return not active.any() and (decision.rule.proxy or not near.any())


def most_macs(trials: Trials, learnt: Mapping[str, Learnt], spares: Spares) -> float:
    """MACs of an input on which nothing is saved.

    With everything forced open, and what the other decisions spared added; NaN where they have
    several units, all of which no trial input need have opened.
    """
    others = [name for name in learnt if name not in trials.forcible]
    if any(learnt[name].units > 1 for name in others):
        return nan
    modules = {module for name in others for module in spares[name]}
    outer = {m for m in modules if not any(m.startswith(f"{other}.") for other in modules)}
    return max(
        trial.macs
        + sum(trials.macs_of(module) for module in outer if not trial.spent.under(module))
        for trial in trials.opened
    )


def _units(decision: Decision, trials: Trials) -> int:
    """How many units a decision has where all are open; its gradient is checked on the way."""
    pixels = trials.reaching(decision).image.detach().clone().requires_grad_()
    with torch.enable_grad():
        passed = run(trials.model, pixels, trials.decisions, trials.forcible)
        if decision.name not in passed.tensors:
            passed = run(trials.model, pixels, trials.decisions)
        tensor = passed.tensors[decision.name]
        try:
            margin, active = decision.rule.decide(tensor)
        except EffattackError:
            raise
        except Exception as error:  # whatever a user's measure raises
            raise _misshapen(decision, tensor, first_line(error)) from error
    if active.dtype != torch.bool:
        raise _misshapen(decision, tensor, f"decisions in {active.dtype}, not torch.bool")
    if margin.shape != active.shape or margin.dim() not in (1, 2) or len(margin) != 1:
        found = f"margins {tuple(margin.shape)}, decisions {tuple(active.shape)}"
        raise _misshapen(decision, tensor, found)
    gradient = None
    if margin.requires_grad:
        (gradient,) = torch.autograd.grad(margin.sum(), pixels, allow_unused=True)
    if gradient is None:
        raise GradientError(
            f"decision {decision.name}: no gradient from {decision.module} reaches the input: "
            "compute it without no_grad, detach, numpy or argmax, name a tensor before that, or "
            "wrap the model as effattack.Opaque, for attacks that need none"
        )
    return margin.numel()


def _shut(decision: Decision, opened: Trial, trials: Trials) -> Trial:
    """The same input where a decision saves all that it can, the others forced open."""
    name = decision.name
    shut = trials.run(opened.image, {**trials.forcible, name: -trials.forcible[name]})
    if shut.macs == opened.macs:
        raise UsageError(
            f"decision {name}: setting {decision.threshold} changes nothing, {opened.macs:,} MACs "
            "either way: name the attribute that is compared where the decision is taken (read "
            "there, not copied before), or leave it out and name what is spared"
        )
    if shut.macs > opened.macs:
        raise UsageError(
            f"decision {name}: {decision.rule} is to say where work is saved, but the model "
            f"executes {shut.macs:,} MACs there and {opened.macs:,} elsewhere: swap above and below"
        )
    return shut


def _misshapen(decision: Decision, tensor: Tensor, found: str) -> UsageError:
    return UsageError(
        f"decision {decision.name}: {decision.module} gives {tuple(tensor.shape)}, which its rule "
        f"cannot read as one decision (1,) or units (1, n) of one input ({found}): name another "
        "tensor, or another measure in the rule"
    )
