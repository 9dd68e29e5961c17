"""ONNX files as victims: crafted on a twin, judged by what the runtime answers and records."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import nan
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effattack.counting.tallies import Count
from effattack.domains import Batch, Domain
from effattack.errors import UsageError
from effattack.tasks import Classes, Task
from effattack.victim.contract import Victim
from effattack.victim.deployed.deployed import Deployed
from effattack.victim.deployed.onnx_runtime.feeding import pixels, slot_of
from effattack.victim.deployed.onnx_runtime.folded import decides, merged
from effattack.victim.deployed.onnx_runtime.served import Recorded, Served
from effattack.victim.deployed.onnx_runtime.session import LEVELS, read, weights_outside


def onnx(
    path: str | PathLike[str],
    twin: Victim | None = None,
    *,
    name: str | None = None,
    data: str | None = None,
    domain: Domain | None = None,
    max_macs: float | None = None,
    level: str = "ENABLE_ALL",
) -> Deployed:
    """An ONNX file as a victim: attacks see the twin; answers, work and latency are the file's.

    The file takes one float input (B, ...) and says logits (B, classes) in its first output; an
    output that bears the name of a gate of the twin tells its decisions, (B, units). Without such
    outputs, decisions are told by the branches that ran, where each gate of the twin has its own
    ``If``, in the same order, one branch of which multiplies nothing.

    Work is counted from the runtime's own record of the nodes that ran: ``macs`` in nominal shapes,
    count ``deployed_macs`` in those of the level at which the file is served, which may pad
    channels. A graph that branches decides for a whole batch, so it gets one input at a time.

    Args:
        path: of the file; external weights lie beside it.
        twin: the model that it was exported from, which attacks may differentiate. Without one,
            query attacks, transfer and controls apply.
        name: how tables call it; by default the file's, without its ending.
        data: ``"module:factory"`` of inputs and labels to score when the user names none.
        domain: what inputs are, where there is no twin and they are no images.
        max_macs: MACs of its worst case; by default the twin's, unknown without one.
        level: of optimisation at which it is served: "DISABLE_ALL", "ENABLE_BASIC",
            "ENABLE_EXTENDED" or "ENABLE_ALL", ONNX Runtime's default.

    Raises:
        UsageError: for a file that cannot be read, loaded, fed or compared with the twin.
        UnknownOperator: for operators whose cost nobody knows.
        MissingPackage: without onnx or ONNX Runtime.
    """
    file = Path(path)
    if level not in LEVELS:
        raise UsageError(f"level = {level!r} is none of ONNX Runtime's: give one of {LEVELS}")
    model = read(file)
    slot = slot_of(file, model)
    gates = [] if twin is None else gate_names(twin)
    _expect_decisions(file, model.graph, gates)
    told = {output.name for output in model.graph.output}
    shown = [gate for gate in gates if gate in told]
    served = Served(file, slot, level, shown, weights_outside(file, model))
    known = twin.domain if twin is not None else domain or pixels(file, slot)
    recorded = Recorded(file, slot, level, [] if shown else gates)
    task = _task(served, known, twin)
    _expect_multiplying(recorded, known)
    return Deployed(
        twin,
        served,
        recorded,
        name=name or file.stem,
        domain=known,
        task=task,
        counts={"deployed_macs": Count("MAC", _unknown)},
        max_macs=max_macs,
        data=data,
    )


def _unknown(batch: Batch) -> Tensor:
    """The ceiling of MACs in padded shapes: nobody has worked it out."""
    return torch.full((len(batch),), nan, dtype=torch.float64)


def gate_names(twin: Victim) -> list[str]:
    """The gates of a victim, in their order."""
    with torch.no_grad():
        return [gate.name for gate in twin.trace(twin.example(1)).gates]


def _expect_decisions(path: Path, graph: Any, gates: Sequence[str]) -> None:
    """Refuse a file that takes none of the decisions of its twin; warn of one that takes some.

    Raises:
        UsageError: with the nodes that compute both sides of a decision.
    """
    found = [
        f"{', '.join(each.sides[:4])}{' ..' * (len(each.sides) > 4)} run for every input, and "
        f"{each.where} chooses among their results"
        for each in merged(graph)
    ]
    remedy = "export it with torch.cond, or by effattack export NAME --onnx FILE"
    if gates and not decides(graph):
        why = "; ".join(found) or "it has no If, and no operator whose work depends on values"
        raise UsageError(
            f"{path} computes the same for every input, and its twin decides at "
            f"{', '.join(gates)}: the export folded that away ({why}): {remedy}"
        )
    if found:
        warnings.warn(
            f"{path} computes both sides of a decision: {'; '.join(found)}: {remedy}", stacklevel=3
        )


def _task(served: Served, domain: Domain, twin: Victim | None) -> Task:
    """What a file is asked for: its twin's task, or as many classes as it tells.

    Raises:
        UsageError: where its first output is no logits (B, classes), or not as many as its twin's.
    """
    outputs, _ = served.told(domain.example(1))
    if outputs.dim() != 2 or not outputs.is_floating_point() or outputs.shape[1] < 2:
        raise UsageError(
            f"{served.path}: its output {served.answer!r} has shape {tuple(outputs.shape)} in "
            f"{outputs.dtype}: put logits (B, classes) first"
        )
    if twin is None:
        return Classes(outputs.shape[1])
    if outputs.shape[1] != twin.num_classes:
        raise UsageError(
            f"{served.path} tells {outputs.shape[1]} classes and its twin {twin.name} "
            f"{twin.num_classes}: give the twin that it was made from"
        )
    return twin.task


def _expect_multiplying(recorded: Recorded, domain: Domain) -> None:
    """Record one input: what cannot be counted is refused before anything is attacked.

    Raises:
        UsageError: where nothing was multiplied.
    """
    if not recorded(domain.example(1))["macs"].item():
        raise UsageError(
            f"{recorded.nominal.path} multiplies no matrices at all (0 MACs): there is no work to "
            "take back"
        )
