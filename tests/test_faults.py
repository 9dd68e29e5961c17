"""Sweeps that are killed, and cells that fail: what is finished stays, and rows come out the same.

The short form runs here; ``EFFATTACK_FULL_FAULTS=1 pytest tests/test_faults.py`` is the full one.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from faulty import BAD, TOY, needs_ray

from effattack.cells.store import Store
from effattack.errors import CellError
from effattack.results.evaluation import Evaluation
from effattack.runs.executors import Executor
from effattack.runs.executors.cluster import RETRIES, surroundings
from effattack.runs.executors.process import ATTEMPTS, WORKER
from effattack.runs.executors.ray import Ray
from effattack.runs.executors.workers import Workers
from effattack.runs.run import run

FULL = os.environ.get("EFFATTACK_FULL_FAULTS") == "1"
KILLS = 20 if FULL else 2
only_in_full = pytest.mark.skipif(not FULL, reason="in the full form only")
CELLS = 49
PATIENCE = 300.0
DRIVER = """
import sys
from faulty import TOY
from effattack.runs.executors.in_process import InProcess
from effattack.runs.executors.ray import Ray

out, *address = sys.argv[1:]
TOY.run(out, Ray(*address) if address else InProcess())
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return TOY.run(tmp_path_factory.mktemp("undisturbed")).samples


def same(found: pd.DataFrame, expected: pd.DataFrame) -> bool:
    """Equal rows, bit for bit."""
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    return True


@pytest.mark.slow
def test_a_driver_killed_again_and_again(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    store, dice = Store(tmp_path / "cells"), random.Random(0)
    cells = [cell.spec for cell in TOY.plan()[0].cells]
    assert len(cells) == CELLS
    for _ in range(KILLS):
        before = finished(store)
        driver = driver_of(tmp_path)
        wait_until(lambda: finished(store) > before or driver.poll() is not None)  # noqa: B023
        time.sleep(dice.uniform(0, 0.15))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        assert before < finished(store)
        assert all(store.read(spec) is not None for spec in cells if store.has(spec))
    left = CELLS - finished(store)
    assert left > 0
    assert same(TOY.run(tmp_path).samples, undisturbed)
    assert done(store) >= CELLS - KILLS  # a kill between a cell's file and its line costs the line


@pytest.mark.slow
def test_workers_killed_again_and_again(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    killed = 0
    while killed < KILLS:  # in fresh stores: cells are shorter than the start of a worker
        out, most = tmp_path / str(killed), min(KILLS - killed, ATTEMPTS - 1)
        found, count = while_workers_are_killed(out, Workers(2), WORKER, most)
        assert same(found.samples, undisturbed)
        assert count
        killed += count


@pytest.mark.slow
def test_two_drivers_share_the_work(tmp_path: Path, undisturbed: pd.DataFrame) -> None:
    store, others = Store(tmp_path / "cells"), []

    def joined(*progress: object) -> None:
        """After this driver's first cell, wait for the other's: on a busy machine, one did all."""
        if not others:
            before = finished(store)
            others.append(driver_of(tmp_path))
            wait_until(lambda: finished(store) > before or others[0].poll() is not None)

    assert same(TOY.run(tmp_path, progress=joined).samples, undisturbed)
    assert others[0].wait(PATIENCE) == 0
    assert done(store) == CELLS  # none was run twice
    assert len({entry["pid"] for entry in store.journal}) == 2


@pytest.mark.parametrize("where", ["workers", pytest.param("ray", marks=[needs_ray, only_in_full])])
@pytest.mark.slow
def test_cells_that_raise_hang_or_eat_all_memory(tmp_path: Path, where: str) -> None:
    timeout = 60 if FULL else 15
    executor = Workers(1, timeout=timeout) if where == "workers" else Ray(cores=2, timeout=timeout)
    store = Store(tmp_path / "cells")
    evaluation, failures = run(BAD.plan(), store, executor)
    raised, hung, hungry = sorted(failures, key=lambda text: ("Arith" not in text, "Mem" in text))
    assert raised == "ArithmeticError: no answer to this image"
    assert "it took longer than the timeout of" in hung
    assert hungry.startswith("MemoryError")
    assert set(evaluation.samples["sample"]) == {0}  # clean is missing on all others
    reasons = [skipped["reason"] for skipped in evaluation.meta["skipped"]]
    assert any("images 1 to 1, failed: ArithmeticError" in reason for reason in reasons)
    assert finished(store) == 13 - 3
    assert {entry["state"] for entry in store.journal} == {"done", "failed"}


def test_a_failed_cell_is_tried_again(tmp_path: Path) -> None:
    raising = replace(BAD, data="faulty:raising_data")
    for _ in range(2):
        with pytest.raises(CellError, match=r"1 cells failed, .*: ArithmeticError: no answer"):
            raising.run(tmp_path)


def driver_of(out: Path, *address: str, **settings: str) -> subprocess.Popen:
    """Another process that runs the sweep of toys; on a Ray cluster, if its address is given."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(out), *address], env=environment)


def finished(store: Store) -> int:
    """Cells in the store."""
    return len(list(store.folder.glob("*.parquet")))


def done(store: Store) -> int:
    """Cells that the journal tells of."""
    return sum(entry["state"] == "done" for entry in store.journal)


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.01)


def while_workers_are_killed(
    out: Path, executor: Executor, title: str, kills: int
) -> tuple[Evaluation, int]:
    """Run the sweep of toys, and kill its workers, known by their command line, at most so often.

    Returns what it found, and how many were killed.
    """
    results: list[Evaluation] = []
    thread = threading.Thread(target=lambda: results.append(TOY.run(out, executor)))
    store, dice, killed = Store(out / "cells"), random.Random(1), 0
    thread.start()
    while killed < kills and thread.is_alive():
        before = finished(store)
        wait_until(lambda: finished(store) > before or not thread.is_alive())  # noqa: B023
        time.sleep(dice.uniform(0, 0.05))
        killed += kill_one(store, title)
    thread.join(PATIENCE)
    assert results, "the sweep did not end well"
    return results[0], killed


def kill_one(store: Store, title: str) -> bool:
    """Kill a process that works on a cell; False if there was none to be caught."""
    for owner in store.running().values():
        command = Path(f"/proc/{owner.get('pid')}/cmdline")
        if command.exists() and title in command.read_text():
            os.kill(owner["pid"], signal.SIGKILL)
            return True
    return False


@needs_ray
@pytest.mark.slow
def test_ray_stays_on_the_loopback_and_survives_lost_workers(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    open_to: set[str] = set()

    class Watched(Ray):
        def alone(self) -> AbstractContextManager[Ray]:
            raise AssertionError("nothing is timed")

        def __exit__(self, *error: object) -> None:
            open_to.update(listening(os.getpid()))
            super().__exit__(*error)

    killed, kills = 0, KILLS if FULL else 1
    while killed < kills:
        out, most = tmp_path / str(killed), min(kills - killed, RETRIES)
        found, count = while_workers_are_killed(out, Watched(cores=2), "ray::_task", most)
        assert same(found.samples, undisturbed)
        assert count
        killed += count
    assert open_to, "no port of Ray was found"
    assert open_to <= {"0100007F", "0000000000000000FFFF00000100007F"}, open_to


@needs_ray
@pytest.mark.slow
def test_an_existing_ray_cluster_that_loses_a_node(
    tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    settings = ray_settings()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, str(Path(__file__).with_name("ray_cluster.py"))]
    with subprocess.Popen(command, env={**os.environ, **settings}, **pipes) as cluster:
        address, node = cluster.stdout.readline().split()
        driver = driver_of(tmp_path, address, **settings)
        store = Store(tmp_path / "cells")
        wait_until(lambda: working_below(int(node), store) or driver.poll() is not None)
        assert driver.poll() is None
        print("lose it", file=cluster.stdin, flush=True)
        assert cluster.stdout.readline() == "lost\n"
        before = finished(store)
        assert driver.wait(PATIENCE) == 0
        cluster.stdin.close()
    assert before < CELLS == finished(store)
    assert same(TOY.run(tmp_path).samples, undisturbed)


def ray_settings() -> dict[str, str]:
    """Of a cluster that stays on the loopback, and of its drivers."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **token, **surroundings()}


def working_below(root: int, store: Store) -> bool:
    """Whether a descendant of a process works on a cell."""
    return not {owner.get("pid") for owner in store.running().values()}.isdisjoint(family(root))


def listening(root: int) -> set[str]:
    """Addresses, as the kernel writes them, on which a process and its descendants listen."""
    sockets = set()
    for pid in family(root):
        with suppress(OSError):
            sockets |= {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    own = [line for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]
    return {line[1].partition(":")[0] for line in own}


def family(root: int) -> set[int]:
    """A process and its descendants."""
    found = {root}
    for pid in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()):
        with suppress(OSError):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) in found:
                found.add(pid)
    return found
