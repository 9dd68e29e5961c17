"""Whether an ONNX file answers, decides and multiplies as the victim that it was exported from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from effattack.domains import Batch
from effattack.errors import MeasurementError
from effattack.victim.contract import Victim
from effattack.victim.deployed.onnx_runtime.costs import macs_of
from effattack.victim.deployed.onnx_runtime.feeding import slot_of
from effattack.victim.deployed.onnx_runtime.node import Executed
from effattack.victim.deployed.onnx_runtime.record import Record
from effattack.victim.deployed.onnx_runtime.served import NOMINAL, Served
from effattack.victim.deployed.onnx_runtime.session import read
from effattack.victim.rounding import on_knife_edge


def compare(victim: Victim, path: Path, gates: Sequence[str], inputs: Batch) -> int:
    """How many of some inputs stop early in a file that does what a victim does.

    That nodes behind an exit did not run is read off ONNX Runtime's record of those that did: on no
    input do they multiply more than the victim. Inputs within rounding of a threshold are left out.

    Args:
        victim: without a change since it was exported.
        path: of the file.
        gates: names of its outputs that tell decisions, in the order of the victim's gates.
        inputs: to run both on.

    Raises:
        MeasurementError: where they differ, with the first input that shows it.
    """
    slot = slot_of(path, read(path))
    outputs, told = Served(path, slot, "ENABLE_ALL", gates).told(inputs)
    runs = Record(path, NOMINAL).runs(slot.feeds(inputs))
    trace = victim.trace(victim.domain.place(inputs, victim.device))
    sure = ~on_knife_edge(trace).cpu()
    noun = victim.domain.noun

    for index in sure.nonzero()[:, 0].tolist():
        if surplus := _beyond(runs[index], trace.macs[index].item()):
            raise MeasurementError(
                f"{path.name} computes what {victim.name} leaves out: on {noun} {index} also "
                f"{', '.join(surplus[:8])}{' ..' * (len(surplus) > 8)} ran: put each stage behind "
                "its exit into one branch of torch.cond"
            )

    def expect(alike: Tensor, what: str) -> None:
        if (differ := sure & ~alike.cpu()).any():
            raise MeasurementError(
                f"{path.name} is not {victim.name}: {noun} {int(differ.nonzero()[0])} has {what} "
                f"in the file (torch {torch.__version__}): leave out of its stages what draws at "
                "random, and what computes otherwise while it is exported"
            )

    for gate in trace.gates:
        alike = (told[gate.name] == gate.active.cpu()).all(1)
        expect(alike, f"other decisions at {gate.name}")
    tolerance = math.sqrt(torch.finfo(trace.dtype or victim.dtype).eps)
    expect(victim.task.close(outputs, trace.logits.cpu(), tolerance), "another answer")
    stopped = torch.stack([(gate.reached & ~gate.active).any(1) for gate in trace.gates]).any(0)
    return int(stopped.sum())


def _beyond(run: Sequence[Executed], macs: float) -> list[str]:
    """Nodes of one run that multiplied after so many MACs were done."""
    multiplied = [(node.name, count) for node in run if (count := macs_of(node))]
    spent = accumulate(count for _, count in multiplied)
    return [name for (name, _), total in zip(multiplied, spent, strict=True) if total > macs]
