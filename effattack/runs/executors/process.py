"""One local worker: a process that runs cells, started when there is one, and again when lost."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

from effattack.cells.by_name import Named
from effattack.cells.held import Held
from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Store
from effattack.errors import CellError
from effattack.measure.environment import usable_cores
from effattack.runs.executors import surroundings
from effattack.runs.executors.wire import ticket, understood

ATTEMPTS = 3
"""How often a cell is tried whose worker is killed, before the cell is held to be the cause."""
LAST = 5.0
"""Seconds for a process that closed its end of the pipe to end itself."""
LOOK = 1.0
"""Seconds between two looks at whether a silent process still lives: a child may hold its pipe."""
WORKER = "effattack.runs.executors.worker"
"""What a process runs."""


class Worker:
    """One process, started when a cell is there for it, and again when it was lost."""

    def __init__(self, store: Store, gpu: int | None) -> None:
        self._store, self._gpu = store, gpu
        self.running: Held | Named | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def serve(self, cell: Cell, timeout: float | None) -> Outcome:
        """Have a cell run.

        Raises:
            StoreError: if its rows could not be stored.
        """
        line = f"{ticket(cell)}\n".encode()
        for _ in range(ATTEMPTS):
            try:
                answer = self._ask(line, timeout)
            except TimeoutError:
                self._kill()
                return self._failed(cell, f"it took longer than the timeout of {timeout:g} s")
            if answer:
                return understood(answer.decode(), cell)
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

    def _ask(self, line: bytes, timeout: float | None) -> bytes:
        """The reply; empty, if the process was lost."""
        if self._process is None:
            self._process = self._started()
            if not _line(self._process, None):  # told to be ready
                return b""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
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
        names = visible.split(",") if visible else [str(i) for i in range(devices(True))]
        own["CUDA_VISIBLE_DEVICES"] = names[gpu % len(names)]
    return {**os.environ, **own}


def devices(on_gpu: bool) -> int:
    """How many workers there is room for: a GPU, or a core, each."""
    if not on_gpu:
        return usable_cores()
    import torch

    return torch.cuda.device_count()
