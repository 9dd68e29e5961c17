"""Local workers: processes of their own, one per GPU, or one per core with one thread each."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from queue import SimpleQueue

from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf, Store
from effattack.errors import CellError, UsageError
from effattack.measure.environment import device_name, usable_cores
from effattack.runs.deadline import check_timeout
from effattack.runs.executors import check_local, surroundings
from effattack.runs.executors.replies import understood
from effattack.runs.executors.tickets import written

ATTEMPTS = 3
"""How often a cell is tried whose worker is killed, before the cell is held to be the cause."""
LAST = 5.0
"""Seconds for a process that closed its end of the pipe to end itself."""
LOOK = 1.0
"""Seconds between two looks at whether a silent process still lives: a child may hold its pipe."""
WORKER = "effattack.runs.executors.worker"
"""What a process runs."""


class Workers:
    """Cells side by side on this machine. A lost worker is replaced and its cell tried again.

    Args:
        count: how many; None: one per GPU for cells on CUDA, else one per usable core.
        timeout: seconds after which a cell is given up and its worker killed; None: never.
    """

    def __init__(self, count: int | None = None, timeout: float | None = None) -> None:
        if count is not None and count < 1:
            raise UsageError(f"workers = {count}: it must be positive")
        check_timeout(timeout)
        self.count, self.timeout = count, timeout
        self._workers: list[Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._keep(0)

    def check(self, device: str, timed: bool) -> None:
        check_local(device)

    def run(self, cells: Iterable[Cell], shelf: Shelf) -> Iterator[Outcome]:
        cells = list(cells)
        idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._ready(cells, shelf):
            idle.put(worker)

        def served(cell: Cell) -> Outcome:
            worker = idle.get()
            try:
                return worker.serve(cell, self.timeout)
            finally:
                idle.put(worker)

        threads = ThreadPoolExecutor(max(1, idle.qsize()))
        try:
            for future in as_completed([threads.submit(served, cell) for cell in cells]):
                yield future.result()
        except BaseException:
            self._keep(0)
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    @contextmanager
    def alone(self) -> Iterator[Workers]:
        self._keep(1)
        single = Workers(1, self.timeout)
        single._workers = self._workers
        yield single

    def _ready(self, cells: list[Cell], shelf: Shelf) -> list[Worker]:
        """As many workers as there is use for; they start with their first cell."""
        if not isinstance(shelf, Store):
            raise UsageError("workers share a store on the disk: give the folder of one")
        on_gpu = bool(cells) and cells[0].spec.device != "cpu"
        count = min(self.count or _devices(on_gpu), len(cells))
        for index in range(len(self._workers), count):
            self._workers.append(Worker(shelf, index if on_gpu else None))
        return self._workers[:count]

    def _keep(self, count: int) -> None:
        """End all workers but the first ones."""
        for worker in self._workers[count:]:
            worker.end()
        del self._workers[count:]

    def place(self, device: str) -> str:
        return device_name(device)


class Worker:
    """One process, started when a cell is there for it, and again when it was lost."""

    def __init__(self, store: Store, gpu: int | None) -> None:
        self._store, self._gpu = store, gpu
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def serve(self, cell: Cell, timeout: float | None) -> Outcome:
        """Have a cell run.

        Raises:
            StoreError: if its rows could not be stored.
        """
        ticket = f"{written(cell)}\n".encode()
        for _ in range(ATTEMPTS):
            try:
                line = self._ask(ticket, timeout)
            except TimeoutError:
                self._kill()
                return self._failed(cell, f"it took longer than the timeout of {timeout:g} s")
            if line:
                return understood(line.decode(), cell)
            code = self._kill(LAST)
            if self._ended or code >= 0:
                return self._failed(
                    cell,
                    f"its worker ended with exit code {code}: what it said stands above; look for "
                    "what ends a process in the victim and its data",
                )
        cause = "out of memory" if code == -signal.SIGKILL else "a crash in native code"
        return self._failed(
            cell, f"its worker was lost {ATTEMPTS} times (signal {-code}); {cause}, perhaps"
        )

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self._ended = True
        self._kill()

    def _failed(self, cell: Cell, reason: str) -> Outcome:
        if not self._ended:
            self._store.record(cell.spec, "failed", error=reason)
        return Outcome(cell, "failed", CellError(f"{cell.spec.victim}: {reason}"))

    def _ask(self, ticket: bytes, timeout: float | None) -> bytes:
        """The reply; empty, if the process was lost."""
        if self._process is None:
            self._process = self._started()
            if not _line(self._process, None):  # told to be ready
                return b""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(ticket)
            self._process.stdin.flush()
        except BrokenPipeError:
            return b""
        return _line(self._process, timeout)

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                WORKER,
                str(self._store.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(self._gpu),
            start_new_session=True,  # an interrupt from the keyboard is the driver's to handle
        )
        if self._ended:
            process.kill()
        return process

    def _kill(self, patience: float = 0.0) -> int:
        """End the process, unless it does so by itself; its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):
            return process.wait(patience)
        process.kill()
        return process.wait()


def _line(process: subprocess.Popen[bytes], timeout: float | None) -> bytes:
    """The next reply; empty, if the process ended.

    Raises:
        TimeoutError: if it takes longer.
    """
    assert process.stdout is not None
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        left = LOOK if until is None else max(0.0, min(LOOK, until - time.monotonic()))
        gone = process.poll() is not None
        if select.select([process.stdout], [], [], left)[0]:
            return process.stdout.readline()
        if gone:
            return b""
        if until is not None and time.monotonic() >= until:
            raise TimeoutError


def _environment(gpu: int | None) -> dict[str, str]:
    """Of a worker: what it may see before torch loads, and where the user's modules are."""
    own = surroundings()
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(i) for i in range(_devices(True))]
        own["CUDA_VISIBLE_DEVICES"] = names[gpu % len(names)]
    return {**os.environ, **own}


def _devices(on_gpu: bool) -> int:
    if not on_gpu:
        return usable_cores()
    import torch

    return torch.cuda.device_count()
