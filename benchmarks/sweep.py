"""What a sweep costs beside its cells: ``python benchmarks/sweep.py [--no-ray]``.

Cells per hour with one and two processes, the overhead of store and journal per cell, Ray's start
and its cost per task, and from these, on paper, a study of 20 victims x 15 attacks x 4 budgets x
3 seeds x 50,000 images on 8, 64 and 512 GPUs. Run it on a quiet machine.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from effattack.execution import Outcome
from effattack.executors import Executor
from effattack.executors.in_process import InProcess
from effattack.executors.workers import Workers
from effattack.plans import Cell
from effattack.scheduling import outcomes
from effattack.store import Store
from effattack.sweep import Sweep

SWEEP = Sweep(
    victims=("digits_cnn_early_exit",),
    attacks=("Slowdown",),
    seeds=tuple(range(6)),
    samples=40,
    slice=20,
    timed=0,
)
VICTIMS, ATTACKS, BUDGETS, SEEDS, IMAGES = 20, 15, 4, 3, 50_000
SLICE = 500
GRADIENTS, GPU_RATE = 50, 1_500.0
"""Gradient evaluations per image and attack; how many a GPU does per second: an assumption, for a
ViT-S at 224 x 224 on one H100-class GPU; put in what you measure."""


def attack_cells() -> list[Cell]:
    return [cell for cell in SWEEP.plan()[0].cells if cell.spec.attack == "Slowdown"]


def rate(executor: Executor) -> tuple[float, float]:
    """Cells per hour once warm, and seconds until the first cell is done."""
    cells = attack_cells()
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
    from effattack.executors.ray import Ray

    started = time.perf_counter()
    with Ray(cores=1) as executor:
        executor.place("cpu")
        there = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(count):
            executor.place("cpu")
        return there, (time.perf_counter() - started) / count


def study(overhead: float) -> None:
    """The full study on paper."""
    configurations = VICTIMS * ATTACKS * BUDGETS * SEEDS
    cells = configurations * math.ceil(IMAGES / SLICE)
    gradients = configurations * IMAGES * GRADIENTS
    timings = configurations * 16 * 12 * 0.02 + configurations * 2.0
    print(
        f"\n{configurations:,} configurations x {IMAGES:,} images: {cells:,} cells of {SLICE}, "
        f"{gradients:.2g} gradient evaluations, at {GPU_RATE:,.0f} per second and GPU"
    )
    print(f"{'GPUs':>5} {'attacks/h':>10} {'store/h':>8} {'timing/h':>9} {'busy':>6}")
    for gpus in (8, 64, 512):
        attacks = gradients / GPU_RATE / gpus / 3600
        stored = cells * overhead / gpus / 3600
        alone = timings / 3600
        busy = attacks / (attacks + stored + alone)
        print(f"{gpus:5} {attacks:10,.1f} {stored:8,.2f} {alone:9,.1f} {busy:6.0%}")


def main() -> None:
    rates = {"in-process": rate(InProcess())[0]}
    print(f"{'executor':14} {'cells/h':>9} {'speed-up':>9} {'first cell/s':>13}")
    print(f"{'in-process':14} {rates['in-process']:9,.0f}")
    makers: dict[str, Callable[[int], Executor]] = {"workers": Workers}
    if "--no-ray" not in sys.argv:
        from effattack.executors.ray import Ray

        makers["ray"] = lambda count: Ray(cores=count)
    for name, make in makers.items():
        for count in (1, 2):
            found, first = rate(make(count))
            rates[f"{name} {count}"] = found
            ratio = found / rates[f"{name} 1"]
            print(f"{name + f' x {count}':14} {found:9,.0f} {ratio:9.2f} {first:13.1f}", flush=True)
    overhead = store_overhead()
    print(f"\nstore and journal: {overhead * 1e3:.1f} ms per cell")
    if "--no-ray" not in sys.argv:
        start, task = ray_costs()
        print(f"Ray: {start:.1f} s until a task ran, {task * 1e3:.1f} ms per task")
    study(overhead)


if __name__ == "__main__":
    main()
