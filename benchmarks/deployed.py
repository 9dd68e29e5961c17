"""Deployed speed: do saved MACs become saved time?

    python benchmarks/deployed.py [--out FILE.md|FILE.csv]

Every victim runs against its dense model (the stock model, with timm's fused attention) on the
same batches, in ABBA order in one process, on one CPU thread. The MACs are those executed on the
timed images, counted by dispatch; both ratios are medians over the quadruples.
About three minutes on one idle core. With CUDA, the token mechanisms are timed there too, in half
precision, at batch 1, 32 and 256.

The dense model is compute-bound where it reaches at least half the speed of a large matrix
product; there, time saved should be at least 80 % of MACs saved. Elsewhere launches and small
operators take the time, and no skipping can save it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from deployed_victims import Subject, digits_victims, patterns, token_victims
from torch import Tensor

from effattack.counting.macs import MacsCounter
from effattack.measure.clocks import Clock, CpuTimeClock, WallClock, deployed
from effattack.measure.environment import environment
from effattack.measure.latency import quadruple

TARGET = 0.8
"""Time saved over MACs saved."""
COMPUTE_BOUND = 0.5
"""Of the speed of a large matrix product."""
COLUMNS = (
    "victim",
    "batch",
    "MACs / dense",
    "time / dense",
    "time saved / MACs saved",
    "dense, of matmul speed",
    "bound by",
    "target met",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="write the table there, .md or .csv")
    out = parser.parse_args().out
    if out and out.suffix not in (".md", ".csv"):
        parser.error(f"--out {out}: use a name that ends in .md or .csv")
    torch.set_num_threads(1)
    cpu = pd.DataFrame(show(cpu_rows()), columns=COLUMNS)
    tables = {describe("cpu", "cpu_time, float32"): cpu}
    if torch.cuda.is_available():
        rows = pd.DataFrame(show(cuda_rows()), columns=COLUMNS)
        tables[describe("cuda", "wall, float16")] = rows
    else:
        print("no CUDA device: no rows for a GPU")
    if out:
        write(tables, out)


def cpu_rows() -> Iterator[tuple[object, ...]]:
    clock, peak = CpuTimeClock(), matmul_speed(torch.device("cpu"), torch.float32)
    for subject in token_victims(patterns(32)):
        yield row(subject, 1, 5, clock, peak)
        yield row(subject, 32, 1, clock, peak)
    for subject in digits_victims():
        yield row(subject, 1, 100, clock, peak)
        yield row(subject, 32, 18, clock, peak)


def cuda_rows() -> Iterator[tuple[object, ...]]:
    device = torch.device("cuda")
    clock, peak = WallClock(device), matmul_speed(device, torch.float16)
    for subject in token_victims(patterns(256).to(device, torch.float16)):
        for batch in (1, 32, 256):
            yield row(subject, batch, 20, clock, peak)


def row(
    subject: Subject, batch: int, quadruples: int, clock: Clock, peak: float
) -> tuple[object, ...]:
    """Time a victim and its dense model on batches of its images, over and over."""
    victim = subject.victim
    batches = [part for part in subject.images.split(batch) if len(part) == batch]
    batches = [batches[turn % len(batches)] for turn in range(quadruples)]
    spent, ratios, dense_seconds = [], [], []
    with deployed(victim, batches[0][:1]):
        dense_macs = batch * executed(subject.dense, batches[0][:1])
        for turn, images in enumerate(batches):
            spent.append(executed(victim, images) / dense_macs)
            runs = partial(subject.dense, images), partial(victim, images)
            dense, skipping = quadruple(clock, *runs, mirrored=turn % 2 == 1)
            ratios.append(skipping / dense)
            dense_seconds.append(dense)
    macs, time = median(spent), median(ratios)
    share = (1 - time) / (1 - macs) if macs < 0.99 else None
    speed = dense_macs / median(dense_seconds) / peak
    bound = "compute" if speed >= COMPUTE_BOUND else "overhead"
    met = "-"
    if share is not None and bound == "compute":
        met = "yes" if share >= TARGET else "no"
    return victim.name, batch, macs, time, share, speed, bound, met


def executed(model: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """MACs of one call; a warm-up at the same time."""
    with MacsCounter() as counter:
        model(images)
    return counter.total


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """MACs per second of a large matrix product: the best of five."""
    side = 8192 if device.type == "cuda" else 1024
    clock = WallClock(device) if device.type == "cuda" else CpuTimeClock()
    matrix = torch.rand(side, side, device=device, dtype=dtype)
    return side**3 / min(clock.time(lambda: matrix @ matrix) for _ in range(5))


def show(rows: Iterator[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Print rows as they come."""
    print("".join(f"{name:>26}" if at else f"{name:26}" for at, name in enumerate(COLUMNS)))
    for found in rows:
        cells = [words(value) for value in found]
        print(f"{cells[0]:26}" + "".join(f"{cell:>26}" for cell in cells[1:]), flush=True)
        yield found


def words(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value)


def describe(device: str, how: str) -> str:
    """What the figures depend on, in one line."""
    found = environment(device)
    return (
        f"{found['device_name']}, torch {found['torch']}, {found['threads']} thread, clock "
        f"{how}; token mechanisms on a ViT of the size of DeiT-S with random weights and imposed "
        "token counts, the others trained on digits"
    )


def write(tables: dict[str, pd.DataFrame], out: Path) -> None:
    if out.suffix == ".csv":
        pd.concat(t.assign(measured=how) for how, t in tables.items()).to_csv(out, index=False)
        return
    parts = []
    for how, table in tables.items():
        lines = [table.columns, ["---", *["---:"] * (len(COLUMNS) - 1)]]
        lines += [[words(value) for value in line] for line in table.astype(object).values]
        parts.append(f"{how}.\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
