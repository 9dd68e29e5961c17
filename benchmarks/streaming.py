"""Peak memory of a sweep at 1,000 and at 50,000 images: ``python benchmarks/streaming.py``.

Images of 3 x 64 x 64 lie in an uncompressed ``.npz`` (2.5 GB at 50,000), and are read slice by
slice by the process that runs the cells. Each row of the table is a process of its own. The frame
of results is held in memory; it has three rows per image: clean, noise and near-uniform.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from effattack import Trace, Victim
from effattack.runs.sweep import Sweep

SHAPE = (3, 64, 64)
COUNTS = (1_000, 50_000)
"""Others on the command line: ``python benchmarks/streaming.py 1000 10000``."""


class Thumbnail(Victim):
    """A victim that costs next to nothing: it looks at every 16th pixel."""

    def __init__(self) -> None:
        super().__init__(
            name="thumbnail",
            family="layer skipping",
            input_shape=SHAPE,
            num_classes=10,
            max_macs=480,
            dense_macs=480,
            constant=True,
        )
        self.head = nn.Linear(48, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images[:, :, ::16, ::16].flatten(1))

    def trace(self, images: Tensor) -> Trace:
        macs = torch.full((len(images),), 480.0, dtype=torch.float64)
        return Trace(self(images), (), macs)


def written(path: Path, count: int) -> Path:
    """An ``.npz`` of noise, written without ever holding it."""
    folder = path.with_suffix("")
    folder.mkdir()
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float32, (count, *SHAPE))
    dice = np.random.default_rng(0)
    for first in range(0, count, 1000):
        levels = dice.integers(0, 256, (min(1000, count - first), *SHAPE))
        images[first : first + 1000] = levels.astype(np.float32) / np.float32(255)
    images.flush()
    np.save(folder / "labels.npy", np.arange(count) % 10)
    with ZipFile(path, "w") as archive:  # as np.savez does: stored, not compressed
        for name in ("images.npy", "labels.npy"):
            archive.write(folder / name, name)
    return path


def peak() -> float:
    """Peak resident memory of this process in MB; ``ru_maxrss`` would count the parent's too."""
    (line,) = re.findall(
        r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8")
    )
    return int(line) / 1e3


def measured(count: int, folder: Path) -> dict[str, float]:
    """Run the sweep here; peak memory in MB before, after the last cell, and with all rows."""
    torch.set_num_threads(1)
    peaks = [peak()]
    sweep = Sweep(
        victims=("streaming:Thumbnail",),
        attacks=("noise",),
        data=str(folder / "data.npz"),
        slice=500,
        timed=0,
    )
    found = sweep.run(folder / "out", progress=lambda *_: peaks.append(peak()))
    rows = len(found.samples)
    return {"rows": rows, "start": peaks[0], "cells": peaks[-1], "all": peak()}


def main() -> None:
    print("| images | pixels, MB | peak: start, MB | all cells, MB | with the frame, MB | rows |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in [int(text) for text in sys.argv[1:]] or COUNTS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            written(folder / "data.npz", count)
            command = [sys.executable, __file__, "--measure", str(count), name]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
            found = json.loads(done.stdout.splitlines()[-1])
        pixels = count * np.prod(SHAPE) * 4 / 1e6
        print(
            f"| {count:,} | {pixels:,.0f} | {found['start']:,.0f} | {found['cells']:,.0f} "
            f"| {found['all']:,.0f} | {found['rows']:,} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(int(sys.argv[2]), Path(sys.argv[3]))))
    else:
        main()
