"""Gates are well formed, and their margins tell the decisions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import ContractError
from effattack.victim import Gate, Victim
from effattack.victim.checks.blame import first_of
from effattack.victim.undisturbed import undisturbed

MARGIN_BOUND = 1.0
"""Margins are in units of decisions: none exceeds this where attacks push it."""


def check_gates(victim: Victim, batch: Batch) -> list[str]:
    """Gates are well formed, and their margins tell the decisions.

    Shapes and dtypes agree, names are unique, costs positive; margins are finite, and within
    ``MARGIN_BOUND`` where reached (where pushed: everywhere); active implies reached; and,
    except for proxies, margin > 0 equals active wherever reached.

    Returns:
        a sentence where stages answer, but none of their gates is pushed.
    """
    with undisturbed(victim), torch.no_grad():
        trace = victim.trace(batch)
    gates = trace.gates
    names = [gate.name for gate in gates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(f"{victim.name}: gates {twice} share names: number them")
    for gate in gates:
        _check_form(victim, gate, len(batch))
        wrong = (gate.margin > 0) != gate.active
        size = gate.margin.abs().nan_to_num(nan=math.inf)
        rules = {
            "its margin is NaN or infinite: it must be finite even where not reached": size.isinf(),
            f"its margin exceeds {MARGIN_BOUND:g} by {(size - MARGIN_BOUND).max():.3g}: bound it, "
            "as m / (1 + |m|) or by clipping": (gate.reached | gate.pushed) & (size > MARGIN_BOUND),
            "it is active, but was not reached: active includes upstream decisions": gate.active
            & ~gate.reached,
            f"its margin is up to {(size * wrong).max():.3g} on the wrong side of its decision: "
            "margin > 0 must equal active, or declare proxy=True": gate.reached
            & wrong
            & (not gate.proxy),
        }
        for complaint, broken in rules.items():
            if broken.any():
                raise ContractError(
                    f"{victim.name}: gate {gate.name}: {victim.domain.noun} {first_of(broken)}: "
                    f"{complaint}"
                )
    if gates and trace.stage_logits is not None and not any(gate.pushed for gate in gates):
        return [
            f"{victim.name}: its stages answer (stage_logits), but no gate is pushed before it is "
            "reached: attacks open one exit after the other; set Gate(pushed=True) for stages in a "
            "row, whose margins exist where not reached"
        ]
    return []


def _check_form(victim: Victim, gate: Gate, count: int) -> None:
    shape = tuple(gate.margin.shape)
    units = len(shape) == 2 and shape[0] == count
    problems = {
        "it has no name": not gate.name,
        f"margin is {shape} {gate.margin.dtype}, expected floats, (B,) or (B, units)": (
            not (units and gate.margin.is_floating_point())
        ),
        f"active {tuple(gate.active.shape)} {gate.active.dtype} and reached "
        f"{tuple(gate.reached.shape)} {gate.reached.dtype} must be bool and {shape} as margin": any(
            flag.dtype != torch.bool or tuple(flag.shape) != shape
            for flag in (gate.active, gate.reached)
        ),
        f"cost = {gate.cost} must be positive and finite: the MACs that opening one unit makes "
        "possible": not _positive(gate.cost),
    }
    for problem, present in problems.items():
        if present:
            raise ContractError(f"{victim.name}: gate {gate.name!r}: {problem}")


def _positive(cost: Tensor | float) -> bool:
    costs = torch.as_tensor(cost, dtype=torch.float64)
    return bool(((costs > 0) & torch.isfinite(costs)).all())
