"""Whether an artefact does with an input what its twin does."""

from __future__ import annotations

from torch import Tensor

from effattack.errors import ContractError
from effattack.victim.contract import Victim
from effattack.victim.deployed.told import Decisions
from effattack.victim.trace import Trace


def alike(
    victim: Victim, trace: Trace, outputs: Tensor, decisions: Decisions, macs: Tensor
) -> bool:
    """Whether the twin takes the same decisions on one input, and gives the same answer.

    Where the artefact shows no decisions, its MACs stand for them, as far as they are known. What a
    gate that was not reached would have decided is no matter.

    Args:
        victim: the artefact.
        trace: of its twin, of this input.
        outputs: of the artefact,
        decisions: what it shows of them,
        macs: and what it executed.

    Raises:
        ContractError: for gates whose names or units are not the twin's.
    """
    task = victim.task
    if not bool(task.agree(task.answer(trace.logits), task.answer(outputs)).all()):
        return False
    if not decisions:
        return bool(macs.isnan().all() or (macs == trace.macs).all())
    gates = {gate.name: gate for gate in trace.gates}
    _expect_gates(victim, {name: gate.active for name, gate in gates.items()}, decisions)
    return not any(
        bool(((gates[name].active != taken) & gates[name].reached).any())
        for name, taken in decisions.items()
    )


def _expect_gates(victim: Victim, taken: Decisions, shown: Decisions) -> None:
    for name, decision in shown.items():
        if name not in taken:
            raise ContractError(
                f"{victim.name}: it shows decisions of a gate {name!r}, which its twin lacks: name "
                f"them as the twin does ({', '.join(taken) or 'it has none'})"
            )
        if decision.shape != taken[name].shape:
            raise ContractError(
                f"{victim.name}: it shows {decision.shape[1]} decisions of gate {name!r} for one "
                f"{victim.domain.noun}, its twin takes {taken[name].shape[1]}: give (B, units) bool"
            )
