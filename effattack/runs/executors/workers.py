"""Local workers: processes of their own, one per GPU, or one per core with one thread each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Lock

from effattack.cells.by_name import Named
from effattack.cells.held import Held
from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Shelf, Store
from effattack.errors import UsageError
from effattack.measure.environment import device_name
from effattack.runs.deadline import check_timeout
from effattack.runs.executors import check_local
from effattack.runs.executors.process import Worker, devices


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
        workers = self._ready(cells, shelf)
        waiting = Waiting(cells, workers)
        idle: SimpleQueue[Worker] = SimpleQueue()
        for worker in workers:
            idle.put(worker)

        def served() -> Outcome:
            worker = idle.get()
            try:
                return worker.serve(waiting.next_for(worker), self.timeout)
            finally:
                idle.put(worker)

        threads = ThreadPoolExecutor(max(1, len(workers)))
        try:
            for future in as_completed([threads.submit(served) for _ in cells]):
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
        count = min(self.count or devices(on_gpu), len(cells))
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


class Waiting:
    """Cells that no worker has yet, by what they are made from.

    A worker is given those of the victim that it ran before; when there are none left, those of
    one that no other worker runs, the dearest first.
    """

    def __init__(self, cells: Iterable[Cell], workers: Sequence[Worker]) -> None:
        self._workers, self._lock = workers, Lock()
        self._cells: dict[Held | Named, deque[Cell]] = {}
        for cell in cells:
            self._cells.setdefault(cell.made_from, deque()).append(cell)

    def next_for(self, worker: Worker) -> Cell:
        """A cell, which is nobody else's then."""
        with self._lock:
            if worker.running not in self._cells:
                worker.running = max(self._cells, key=self._worth)
            cells = self._cells[worker.running]
            cell = cells.popleft()
            if not cells:
                del self._cells[worker.running]
            return cell

    def _worth(self, made_from: Held | Named) -> tuple[bool, float]:
        free = all(made_from != worker.running for worker in self._workers)
        return free, sum(cell.macs for cell in self._cells[made_from])
