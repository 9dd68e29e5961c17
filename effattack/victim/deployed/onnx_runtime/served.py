"""A graph as it is served, and the work that ONNX Runtime's record shows for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effattack.errors import UsageError, first_line
from effattack.victim.deployed.onnx_runtime.costs import macs_of
from effattack.victim.deployed.onnx_runtime.feeding import Slot
from effattack.victim.deployed.onnx_runtime.graph import choices
from effattack.victim.deployed.onnx_runtime.node import Executed
from effattack.victim.deployed.onnx_runtime.record import Record
from effattack.victim.deployed.onnx_runtime.session import session

NOMINAL = "ENABLE_EXTENDED"
"""The highest level of optimisation that leaves all shapes as they are."""


class Served:
    """A session without profiling: what is answered from, and timed.

    Args:
        path: of the ONNX file.
        slot: its input.
        level: of optimisation.
        gates: names of outputs that tell decisions, (B, units) each.
        weights: files beside it that hold weights; they count into the digest of the victim.
    """

    def __init__(
        self,
        path: Path,
        slot: Slot,
        level: str,
        gates: Sequence[str] = (),
        weights: Sequence[Path] = (),
    ) -> None:
        self.path = path
        self.slot = slot
        self.level = level
        self.gates = tuple(gates)
        self.weights = tuple(weights)

    def __reduce__(self) -> Any:
        return Served, (self.path, self.slot, self.level, self.gates, self.weights)

    @cached_property
    def session(self) -> Any:
        return session(self.path, self.level, threads=torch.get_num_threads())

    @property
    def answer(self) -> str:
        """The output that is no decision; the first of several."""
        return next(out.name for out in self.session.get_outputs() if out.name not in self.gates)

    def __call__(self, batch: Tensor) -> Any:
        """The outputs of a batch; with the decisions, where outputs tell them."""
        outputs, decisions = self.told(batch)
        return (outputs, decisions) if decisions else outputs

    def told(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs of a batch, and the decisions by name of gate that other outputs tell.

        Raises:
            UsageError: where the runtime fails on it.
        """
        wanted = [self.answer, *self.gates]
        try:
            runs = [self.session.run(wanted, feed) for feed in self.slot.feeds(batch)]
        except Exception as error:  # the runtime's own, by kind of failure
            free = f"; {', '.join(self.slot.free)} are free in the file" * bool(self.slot.free)
            raise UsageError(
                f"{self.path} does not run on inputs of shape {tuple(batch.shape[1:])} "
                f"({first_line(error)[-300:]}{free}): give the twin that it was made from, or "
                "domain= with the sizes that it takes, as in Pixels((3, 224, 224))"
            ) from error
        outputs, *told = (
            torch.cat([*map(torch.from_numpy, each)]) for each in zip(*runs, strict=True)
        )
        return outputs.to(batch.device), dict(zip(self.gates, map(Tensor.bool, told), strict=True))


class Recorded:
    """Counts the work of a graph, one input after another.

    Args:
        path: of the ONNX file.
        slot: its input.
        level: at which it is served.
        gates: of the twin, in their order.
    """

    def __init__(self, path: Path, slot: Slot, level: str, gates: Sequence[str] = ()) -> None:
        self.slot = slot._replace(alone=True)
        self.nominal = Record(path, NOMINAL)
        self.deployed = Record(path, level)
        self.gates = tuple(gates)

    @cached_property
    def branches(self) -> dict[str, str] | None:
        """Name of gate -> what the names of nodes in the branch that it opens begin with.

        None where gates and branches do not pair up.
        """
        found = choices(self.nominal.nodes)
        if not found or len(found) != len(self.gates):
            return None
        return dict(zip(self.gates, found, strict=True))

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """Of every input: ``macs`` in nominal shapes, as a twin in torch counts them, and
        ``deployed_macs`` in those that are served, (B,) float64; decisions (B, 1) bool by name of
        gate, where branches tell them.
        """
        feeds = self.slot.feeds(batch)
        plain, shipped = self.nominal.runs(feeds), self.deployed.runs(feeds)
        branches = self.branches or {}
        return {
            "macs": _macs(plain),
            "deployed_macs": _macs(shipped),
            **{gate: _entered(branch, plain) for gate, branch in branches.items()},
        }


def _macs(runs: Sequence[Sequence[Executed]]) -> Tensor:
    return torch.tensor([sum(map(macs_of, ran)) for ran in runs], dtype=torch.float64)


def _entered(branch: str, runs: Sequence[Sequence[Executed]]) -> Tensor:
    return torch.tensor([[any(node.name.startswith(branch) for node in ran)] for ran in runs])
