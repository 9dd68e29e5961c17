"""What a sweep costs beside its cells: ``python benchmarks/sweep.py [--seeds N]``.

Cells per hour with one and two processes, the overhead of store and journal per cell, Ray's start
and its cost per task, and from these, on paper, a study of 20 victims x 15 attacks x 4 budgets x
3 seeds x 50,000 images on 8, 64 and 512 GPUs. Run it on a quiet machine. Two cells per seed.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from effattack.cells.performing import Outcome
from effattack.cells.plan import Cell
from effattack.cells.store import Store
from effattack.runs.executors import Executor
from effattack.runs.executors.in_process import InProcess
from effattack.runs.executors.ray import Ray
from effattack.runs.executors.workers import Workers
from effattack.runs.scheduling import outcomes
from effattack.runs.sweep import Sweep

SWEEP = Sweep(
    victims=("digits_cnn_early_exit",),
    attacks=("Slowdown",),
    samples=40,
    slice=20,
    timed=0,
)
VICTIMS, ATTACKS, BUDGETS, SEEDS, IMAGES = 20, 15, 4, 3, 50_000
SLICE, TIMED = 500, 16
GRADIENTS = 50
"""Gradient evaluations per image and attack."""
GPU_RATE = 1_500.0
"""Assumed: gradient evaluations per second and GPU; put in what you measure."""
TIMED_PASSES, TIMED_SECONDS, TIMING_START = 12, 0.02, 2.0
"""Assumed: passes over the timed images, seconds per image, seconds to warm up per timing."""


def attack_cells(seeds: int = 1) -> list[Cell]:
    sweep = replace(SWEEP, seeds=tuple(range(seeds)))
    return [cell for cell in sweep.plan()[0].cells if cell.spec.attack == "Slowdown"]


def rate(executor: Executor, cells: list[Cell]) -> tuple[float, float]:
    """Cells per hour once warm, and seconds until the first two cells are done."""
    with tempfile.TemporaryDirectory() as name, executor:
        store, started = Store(Path(name)), time.perf_counter()
        warm = [replace(cell, spec=replace(cell.spec, seed=99)) for cell in cells[:2]]
        _all(outcomes(warm, store, executor))
        first = time.perf_counter() - started
        started = time.perf_counter()
        _all(outcomes(cells, store, executor))
        return 3600 * len(cells) / (time.perf_counter() - started), first


def _all(found: Iterator[Outcome]) -> None:
    for outcome in found:
        if outcome.error:
            raise outcome.error


def store_overhead(count: int = 50) -> float:
    """Median seconds to claim, look, write and journal a cell of 100 images of 3 x 32 x 32."""
    spec = attack_cells()[0].spec
    pixels = np.random.default_rng(0).integers(0, 256, (100, 3072), dtype=np.uint8)
    numbers = {name: np.random.default_rng(1).random(100) for name in ("macs", "linf", "l2")}
    rows = pd.DataFrame(
        {"sample": np.arange(100), **numbers, "image": [p.tobytes() for p in pixels]}
    )
    taken = []
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name))
        for seed in range(count):
            own = replace(spec, seed=seed)
            started = time.perf_counter()
            with store.claim(own):
                store.has(own)
                store.write(own, rows)
                store.record(own, "done", seconds=0.0)
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def ray_costs(count: int = 200) -> tuple[float, float]:
    """Seconds until a local cluster is there; and per empty task, one after the other."""
    started = time.perf_counter()
    with Ray(cores=1) as executor:
        executor.place("cpu")
        there = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(count):
            executor.place("cpu")
        return there, (time.perf_counter() - started) / count


def study(overhead: float, task: float) -> None:
    """The full study on paper.

    Args:
        overhead: measured seconds of store and journal per cell.
        task: measured seconds of Ray per task, all on the driver.
    """
    configurations = VICTIMS * ATTACKS * BUDGETS * SEEDS
    cells = configurations * math.ceil(IMAGES / SLICE)
    gradients = configurations * IMAGES * GRADIENTS
    alone = configurations * (TIMED * TIMED_PASSES * TIMED_SECONDS + TIMING_START) / 3600
    print(
        f"\nOn paper: {configurations:,} configurations x {IMAGES:,} images, {cells:,} cells of "
        f"{SLICE}, {gradients:.2g} gradient evaluations.\n"
        f"measured: {overhead * 1e3:.1f} ms of store and {task * 1e3:.1f} ms of Ray per cell\n"
        f"assumed: {GPU_RATE:,.0f} gradient evaluations per second and GPU; {TIMED} timed images, "
        f"{TIMED_PASSES} passes of {TIMED_SECONDS * 1e3:.0f} ms, {TIMING_START:g} s to warm up\n\n"
        "| GPUs | attacks, hours | store, hours | timings, hours | GPUs busy with attacks "
        "| driver busy |\n|---:|---:|---:|---:|---:|---:|"
    )
    for gpus in (8, 64, 512):
        attacks = gradients / GPU_RATE / gpus / 3600
        stored = cells * overhead / gpus / 3600
        busy = attacks / (attacks + stored + alone)
        driver = cells * task / 3600 / (attacks + stored)
        print(
            f"| {gpus} | {attacks:,.1f} | {stored:,.2f} | {alone:,.1f} | {busy:.0%} "
            f"| {driver:.1%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6, metavar="N")
    cells = attack_cells(parser.parse_args().seeds)
    alone = rate(InProcess(), cells)[0]
    print(f"{len(cells)} cells of {SWEEP.slice} images\n")
    print("| executor | cells/h | speed-up | first two cells, s |\n|---|---:|---:|---:|")
    print(f"| in process | {alone:,.0f} | | |", flush=True)
    executors: dict[str, Callable[[int], Executor]] = {
        "workers": Workers,
        "Ray": lambda count: Ray(cores=count),
    }
    for name, make in executors.items():
        single = 0.0
        for count in (1, 2):
            found, first = rate(make(count), cells)
            single = single or found
            print(
                f"| {name}, {count} | {found:,.0f} | {found / single:.2f} | {first:.1f} |",
                flush=True,
            )
    overhead = store_overhead()
    print(f"\nstore and journal: {overhead * 1e3:.1f} ms per cell", flush=True)
    start, task = ray_costs()
    print(f"Ray: {start:.1f} s until a task ran, {task * 1e3:.1f} ms per task", flush=True)
    study(overhead, task)


if __name__ == "__main__":
    main()
