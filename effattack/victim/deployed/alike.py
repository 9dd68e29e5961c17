"""Whether an artefact does with an input what its twin does."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from effattack.errors import ContractError
from effattack.victim.contract import Victim
from effattack.victim.deployed.told import Decisions
from effattack.victim.trace import Trace


def alike(
    victim: Victim,
    trace: Trace,
    outputs: Tensor,
    decisions: Decisions | None,
    work: Mapping[str, Tensor],
) -> bool:
    """Whether the twin takes the same decisions on an input, and gives the same answer.

    Where the artefact shows no decisions, its work stands for them, as far as it is known.

    Args:
        victim: the artefact.
        trace: of its twin, of this input.
        outputs: of the artefact,
        decisions: what it shows of them,
        work: and what it says it executed.

    Raises:
        ContractError: for gates whose names or units are not the twin's.
    """
    task = victim.task
    answers = task.answer(trace.logits), task.answer(outputs)
    same = bool(task.agree(*answers).all())
    if decisions is None:
        theirs = {"macs": trace.macs, **trace.also}
        known = [name for name in theirs if name in work and not bool(work[name].isnan().any())]
        return same and all(bool((work[name] == theirs[name]).all()) for name in known)
    _expect_gates(victim, trace, decisions)
    decided = (
        not bool(((gate.active != decisions[gate.name]) & gate.reached).any())
        for gate in trace.gates
    )
    return same and all(decided)


def _expect_gates(victim: Victim, trace: Trace, decisions: Decisions) -> None:
    theirs = {gate.name: tuple(gate.active.shape) for gate in trace.gates}
    shown = {name: tuple(units.shape) for name, units in decisions.items()}
    if shown != theirs:
        raise ContractError(
            f"{victim.name}: run shows decisions of {_told(shown)}, its twin has {_told(theirs)}: "
            "give those of the twin's gates by their names, or none"
        )


def _told(gates: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(gates.items())) or "no gate"
