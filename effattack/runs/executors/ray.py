"""Cells as tasks of a Ray cluster: an existing one by its address, or one on this machine alone.

A task gets a cell as a line of text. Data and victims are named, not sent: every node reads them
from the same paths, and writes rows into the same store, on a file system that all nodes share.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf, Store
from effattack.errors import CellError, MissingPackage, UsageError, install
from effattack.measure.environment import device_name
from effattack.runs.deadline import check_timeout
from effattack.runs.executors import check_local
from effattack.runs.executors.cluster import RETRIES, joined, reach
from effattack.runs.executors.wire import reply, ticket, understood


class Ray:
    """Cells as Ray tasks.

    A local cluster listens on the loopback only, asks for a token that is known to this process
    alone, and has neither dashboard nor usage reports.

    Args:
        address: ``HOST:PORT`` of an existing cluster; None: a local one.
        gpus: of a cell on CUDA; below 1, cells share a GPU, and nothing can be timed.
        cores: of a local cluster; None: all that are usable.
        timeout: seconds after which a cell is given up, waiting for a worker included.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        gpus: float | None = None,
        cores: int | None = None,
        timeout: float | None = None,
    ) -> None:
        self.address, self.gpus = address, 1.0 if gpus is None else gpus
        self.cores, self.timeout = cores, timeout
        self._ray: Any = None
        self._task: Any = None
        self._limit: int | None = None
        self._node: str | None = None

    def __enter__(self) -> Ray:
        self._ray = joined(self.address, self.cores)
        self._task = self._ray.remote(_task)
        return self

    def __exit__(self, *error: object) -> None:
        self._ray.shutdown()

    def check(self, device: str, timed: bool) -> None:
        check_timeout(self.timeout)
        if not self.gpus > 0 or (self.gpus > 1 and self.gpus % 1):
            raise UsageError(f"gpus = {self.gpus:g}: a cell takes a whole GPU, or a share of one")
        if find_spec("ray") is None:
            raise MissingPackage(f"Ray is not installed: {install('ray')}")
        if device == "cuda" and timed and self.gpus < 1:
            raise UsageError(
                f"gpus = {self.gpus:g} would share a GPU, and timing owns its device: use 1, or "
                "time nothing (timed = 0) and time in a run of its own"
            )
        if self.address is None:
            check_local(device)
        else:
            reach(self.address)

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        if not isinstance(shelf, Store):
            raise UsageError("Ray's workers share a store on the disk: give the folder of one")
        waiting = list(cells)[::-1]
        for cell in waiting[-1:]:
            self._check_node_for(cell.spec.device)
        running: dict[Any, tuple[Cell, float]] = {}
        while waiting or running:
            slots = self._slots(waiting[-1]) if waiting else 0
            while waiting and len(running) < slots:
                cell = waiting.pop()
                running[self._submit(cell, shelf)] = cell, time.monotonic()
            finished, _ = self._ray.wait(list(running), timeout=1.0)
            for task in finished:
                yield self._outcome(task, running.pop(task)[0], shelf)
            for task, (cell, since) in list(running.items()):
                if self.timeout is not None and time.monotonic() - since > self.timeout:
                    self._ray.cancel(task, force=True)
                    del running[task]
                    reason = f"it took longer than the timeout of {self.timeout:g} s"
                    yield _failed(cell, reason, shelf)

    @contextmanager
    def alone(self) -> Iterator[Ray]:
        single = copy(self)
        single.gpus, single._limit = 1.0, 1
        yield single

    def place(self, device: str) -> str:
        """Timings stay on the node that answers, as long as it is there."""
        self._check_node_for(device)
        ask = self._ray.remote(num_cpus=1, num_gpus=float(device != "cpu"))(_where)
        name, self._node = self._ray.get(ask.remote(device))
        return str(name)

    def _check_node_for(self, device: str) -> None:
        """Refuse a device that no node has: Ray would wait for one."""
        if device != "cpu" and not self._ray.cluster_resources().get("GPU"):
            raise UsageError(
                'no node of the Ray cluster has a GPU: start one that has, or write device = "cpu"'
            )

    def _submit(self, cell: Cell, store: Store) -> Any:
        gpus = 0.0 if cell.spec.device == "cpu" else self.gpus
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": gpus, "max_retries": RETRIES}
        if self._node is not None and self._limit == 1:
            strategies = self._ray.util.scheduling_strategies
            stay = strategies.NodeAffinitySchedulingStrategy(self._node, soft=True)
            options["scheduling_strategy"] = stay
        return self._task.options(**options).remote(ticket(cell), str(store.folder))

    def _slots(self, cell: Cell) -> int:
        """How many cells fit on the cluster as it is now."""
        if self._limit is not None:
            return self._limit
        free = self._ray.cluster_resources()
        on_cpu = cell.spec.device == "cpu"
        return max(1, int(free.get("CPU", 0) if on_cpu else free.get("GPU", 0) / self.gpus))

    def _outcome(self, task: Any, cell: Cell, store: Store) -> Outcome:
        try:
            return understood(self._ray.get(task), cell)
        except self._ray.exceptions.RayTaskError as error:  # ends with what the task raised
            reason = str(error).strip().splitlines()[-1]
        except self._ray.exceptions.RayError as error:
            reason = f"Ray gave it up: {str(error).strip().splitlines()[0]}"
        return _failed(cell, reason, store)


def _task(line: str, folder: str) -> str:
    """What runs on a node."""
    return reply(line, Store(Path(folder)))


def _where(device: str) -> tuple[str, str]:
    """Name of a device, and the node it is on."""
    import ray

    return device_name(device), ray.get_runtime_context().get_node_id()


def _failed(cell: Cell, reason: str, store: Store) -> Outcome:
    store.record(cell.spec, "failed", error=reason)
    return Outcome(cell, "failed", CellError(f"{cell.spec.victim}: {reason}"))
