"""What ONNX Runtime says that it ran: its profile, node by node.

The graph is optimised once, as it would be for serving, and what came of it is kept in a temporary
folder with unique names of nodes; a session that profiles then runs just that graph. Profiles are
read and removed. Nothing is timed here: profiling has its price.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from numpy import ndarray

from effattack.errors import MeasurementError
from effattack.victim.deployed.onnx_runtime.costs import expect_known
from effattack.victim.deployed.onnx_runtime.graph import Planned, plan
from effattack.victim.deployed.onnx_runtime.node import Executed, Shape
from effattack.victim.deployed.onnx_runtime.session import session

Feed = Mapping[str, ndarray]
AT_ONCE = 16
"""Runs per session: a profile holds a million events and drops what comes after."""


class Record:
    """Runs a graph under the runtime's profiler.

    Args:
        path: of the ONNX file.
        level: of optimisation, one of
            :data:`effattack.victim.deployed.onnx_runtime.session.LEVELS`.
    """

    def __init__(self, path: Path, level: str) -> None:
        self.path = path
        self.level = level

    def __reduce__(self) -> Any:
        return Record, (self.path, self.level)

    @cached_property
    def nodes(self) -> dict[str, Planned]:
        """What may run at this level, by name.

        Raises:
            UsageError: for a file that cannot be loaded.
            UnknownOperator: for operators whose cost nobody knows.
        """
        import onnx

        session(self.path, self.level, optimized_model_filepath=str(self._optimized))
        model = onnx.load(self._optimized, load_external_data=False)
        nodes = plan(model)
        self._optimized.write_bytes(model.SerializeToString())
        return nodes

    @cached_property
    def _folder(self) -> TemporaryDirectory[str]:
        return TemporaryDirectory(prefix="effattack-onnx-")

    @property
    def _optimized(self) -> Path:
        return Path(self._folder.name) / "optimized.onnx"

    def runs(self, feeds: Sequence[Feed]) -> list[tuple[Executed, ...]]:
        """The nodes that ran with each feed, in their order.

        Raises:
            MeasurementError: where the runtime's record is cut off.
        """
        nodes = self.nodes
        return [
            tuple(ran)
            for first in range(0, len(feeds), AT_ONCE)
            for ran in self._profiled(feeds[first : first + AT_ONCE], nodes)
        ]

    def _profiled(
        self, feeds: Sequence[Feed], nodes: Mapping[str, Planned]
    ) -> Iterator[Iterator[Executed]]:
        with TemporaryDirectory(dir=self._folder.name) as place:
            running = session(
                *(self._optimized, "DISABLE_ALL"),
                enable_profiling=True,
                profile_file_prefix=str(Path(place) / "profile"),
            )
            for feed in feeds:
                running.run(None, feed)
            events = json.loads(Path(running.end_profiling()).read_text(encoding="utf-8"))
        runs = list(_by_run(events))
        if len(runs) != len(feeds):
            raise MeasurementError(
                f"{self.path}: ONNX Runtime recorded {len(runs)} of {len(feeds)} runs, as more "
                "nodes ran than its profile holds: give inputs on which its loops turn less often"
            )
        return (_executed(run, nodes) for run in runs)


def _by_run(events: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Events of nodes, run by run: each run ends in an event of its own."""
    run: list[Mapping[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            run.append(event)
        elif event["name"] == "model_run":
            yield run
            run = []


def _executed(
    events: Sequence[Mapping[str, Any]], nodes: Mapping[str, Planned]
) -> Iterator[Executed]:
    for event in events:
        name, told = event["name"].removesuffix("_kernel_time"), event["args"]
        if name in nodes:
            inputs, outputs = _shapes(told, "input"), _shapes(told, "output")
            yield nodes[name].as_ran(name, inputs, outputs)
        else:  # put in by the runtime itself: copies and casts
            expect_known([told["op_name"]])


def _shapes(told: Mapping[str, Any], of: str) -> list[Shape]:
    """Of the tensors of a node, each told as ``{"float": [1, 8]}``."""
    return [tuple(shape) for each in told[f"{of}_type_shape"] for shape in each.values()]
