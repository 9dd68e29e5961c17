"""A graph as it is served, and the work that ONNX Runtime's record shows for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

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
    """

    def __init__(self, path: Path, slot: Slot, level: str, gates: Sequence[str] = ()) -> None:
        self.path = path
        self.slot = slot
        self.level = level
        self.gates = tuple(gates)

    def __reduce__(self) -> Any:
        return Served, (self.path, self.slot, self.level, self.gates)

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
                f"({first_line(error)[-300:]}{free}): give inputs of the size that it was made "
                "for, as domain=Pixels((3, 224, 224)), or export it with fixed sizes"
            ) from error
        outputs, *told = (
            torch.cat([*map(torch.from_numpy, each)]) for each in zip(*runs, strict=True)
        )
        return outputs.to(batch.device), dict(zip(self.gates, map(Tensor.bool, told), strict=True))


class Work(NamedTuple):
    """What one input made a graph do."""

    macs: float
    """In nominal shapes, as a twin in torch counts them."""
    deployed_macs: float
    """In those of the level at which the graph is served, which may pad channels."""
    decisions: Mapping[str, Tensor] | None
    """(units,) bool by name of gate; None where branches do not tell."""


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

    def of(self, batch: Tensor) -> list[Work]:
        """Of every input of a batch."""
        feeds = self.slot.feeds(batch)
        pairs = zip(self.nominal.runs(feeds), self.deployed.runs(feeds), strict=True)
        return [
            Work(_macs(plain), _macs(shipped), self._decisions(plain)) for plain, shipped in pairs
        ]

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        """(B,) float64 by name of count."""
        works = self.of(batch)
        return {
            name: torch.tensor([getattr(work, name) for work in works], dtype=torch.float64)
            for name in ("macs", "deployed_macs")
        }

    def _decisions(self, ran: Sequence[Executed]) -> dict[str, Tensor] | None:
        if self.branches is None:
            return None
        return {
            gate: torch.tensor([any(node.name.startswith(branch) for node in ran)])
            for gate, branch in self.branches.items()
        }


def _macs(ran: Sequence[Executed]) -> float:
    return float(sum(map(macs_of, ran)))
