"""Latency, energy and memory on a GPU: one victim per family at ImageNet size, clean and attacked.

    python benchmarks/gpu.py                                         # random weights
    python benchmarks/gpu.py --data nips17/ --weights weights/       # and the real ViT-Tiny

Latency by the protocol of the library (ABBA, A/A first), energy with both controls (noise, and the
static twin), memory as the most that torch allocates for a call. Each victim's frames are
written under reports/gpu/DEVICE/ as soon as it is measured; the table beside them is made from all
that lie there, so that victims may be measured one by one (--only). ``--device cpu --batch 1
--batches 1 --seconds 0`` runs the same code without a GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import traceback
from itertools import chain
from math import isnan
from pathlib import Path

import pandas as pd
import torch
from deployed_victims import patterns
from gpu_victims import Case, random_cases, trained_cases
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.counting.macs import count_macs
from effattack.errors import EffattackError, MeasurementError
from effattack.measure.clocks import deployed
from effattack.measure.counters import Counter, available_counters, why_empty
from effattack.measure.doctor import why_no_cuda
from effattack.measure.energy import energy_controls
from effattack.measure.environment import device_name, environment
from effattack.measure.latency import time_pairs
from effattack.measure.statistics import NOTHING, Interval, median_ratio
from effattack.victim import Victim

EPS = 8 / 255
AT_ONCE = 64
"""Images that are attacked together."""
ARMS = ("clean", "attacked")
MADE = ["command", "environment"]
"""Columns of every frame that say how it was made."""
ENDS = ("", "_low", "_high")
"""Of the names of an interval's columns."""


def main() -> int:
    """Measure and write; return the exit code."""
    options = _options()
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise MeasurementError(
                f"nothing is measured: {why_no_cuda()}; --device cpu tries the same code there"
            )
        return _all(options)
    except EffattackError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        return error.exit_code


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32, 256], metavar="IMAGES")
    parser.add_argument(
        "--batches",
        type=int,
        default=8,
        help="timed per size (8); 6 are the fewest for an interval",
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of timing per size, at least (5)"
    )
    parser.add_argument("--only", default="", help="only victims whose name contains this")
    parser.add_argument("--data", type=Path, help="as of benchmarks/imagenet.py")
    parser.add_argument("--weights", type=Path, help="as of benchmarks/imagenet.py")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"), metavar="DIR")
    return parser.parse_args()


def _all(options: argparse.Namespace) -> int:
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    counters, _ = available_counters(device)
    folder = options.out / _slug(device_name(device))
    cases = random_cases(patterns(options.batches * max(options.batch)))
    if options.data is not None:
        cases = chain(cases, trained_cases(options.data, options.weights))
    bad = []
    for name, make in cases:
        if options.only not in name:
            continue
        try:
            case = make()
            frames = measured(case, device, options, counters[0] if counters else None)
            write(folder / _slug(f"{name} {case.weights}"), frames)
        except Exception as error:  # what is finished stays, and the others have their turn
            traceback.print_exc()
            bad.append(f"{name}: {type(error).__name__}: {error}")
        else:
            print(frames["summary"].drop(columns=MADE).to_string(index=False), flush=True)
    if folder.exists():
        about = "" if counters else f"No energy: {'; '.join(why_empty(device))}."
        (folder / "README.md").write_text(table(folder, about), encoding="utf-8")
    if bad:
        raise MeasurementError(f"{len(bad)} victims could not be measured: {'; '.join(bad)}")
    return 0


def measured(
    case: Case, device: torch.device, options: argparse.Namespace, counter: Counter | None
) -> dict[str, pd.DataFrame]:
    """Frames of one victim: every timed call, every metered arm, a line per batch size."""
    victim, twin = case.victim.to(device), case.twin.to(device)
    clean = case.images[: options.batches * max(options.batch)]
    noise, attacked = (_attacked(name, victim, clean) for name in ("noise", "Slowdown"))
    latency, energy, lines = [], [], []
    for size in options.batch:
        if size > len(clean):
            print(f"{case.name}: there are {len(clean)} images, no batch of {size}", flush=True)
            continue
        count = min(options.batches, len(clean) // size) * size
        before, control, after = (images[:count] for images in (clean, noise, attacked))
        rows = timed(victim, before, after, size, options.seconds)
        latency.append(rows)
        size = int(rows.batch_size.iloc[0])  # it may have been halved to fit in memory
        metered = pd.DataFrame()
        if counter is not None:
            metered = energy_controls(
                victim, twin, before.to(device), control.to(device), after.to(device), counter,
                batch_size=size,
            )  # fmt: skip
            energy.append(metered.assign(batch_size=size))
        lines.append(summary(case, size, rows, metered, before.to(device), after.to(device)))
    where = json.dumps(environment(device))
    frames = {"latency": latency, "energy": energy, "summary": [pd.DataFrame(lines)]}
    return {
        name: pd.concat(parts, ignore_index=True).assign(
            victim=case.name, command=_command(), environment=where
        )
        for name, parts in frames.items()
        if parts
    }


def timed(
    victim: Victim, clean: Tensor, attacked: Tensor, size: int, seconds: float
) -> pd.DataFrame:
    """Rows of both ``arm``s by each clock: clean against clean, then attacked against clean."""

    def arm(name: str, images: Tensor) -> pd.DataFrame:
        rows = time_pairs(victim, clean, images, batch_sizes=(size,), seconds=seconds)
        return rows.assign(arm=name)

    same = arm("clean", clean.clone())
    if _ratio(same[same.clock == "wall"]).excludes(1):  # a second try, as effattack run gives it
        same = arm("clean", clean.clone())
    return pd.concat([same, arm("attacked", attacked)])


def summary(
    case: Case,
    size: int,
    rows: pd.DataFrame,
    metered: pd.DataFrame,
    clean: Tensor,
    attacked: Tensor,
) -> dict[str, object]:
    """One line: no latency where clean against clean differs."""
    line: dict[str, object] = {
        "victim": case.name,
        "family": case.victim.family,
        "weights": case.weights,
        "batch_size": size,
        "batches": -(-len(clean) // size),
        "macs_ratio": _macs(case.victim, attacked, size) / _macs(case.victim, clean, size),
    }
    for clock, own in rows.groupby("clock"):
        same, ratio = (_ratio(own[own.arm == arm]) for arm in ("clean", "attacked"))
        ratio = NOTHING if same.excludes(1) else ratio
        for key, found in (("aa", same), ("ratio", ratio)):
            line |= {f"{clock}_{key}{end}": bound for end, bound in zip(ENDS, found, strict=True)}
        own = own[own.arm == "attacked"]
        line |= {f"{clock}_ms_{arm}": 1e3 * own[f"seconds_{arm}"].median() for arm in ARMS}
    for row in metered.itertuples():
        role = "twin" if row.model == case.twin.name else "victim"
        line |= {f"{role}_joules_clean": row.joules_clean, "idle_watts": row.idle_watts}
        line[f"{role}_joules_{row.arm}"] = row.joules_attacked
        line[f"{role}_energy_ratio_{row.arm}"] = row.energy_ratio
    for arm, images in zip(ARMS, (clean, attacked), strict=True):
        line[f"mib_{arm}"] = peak_mib(case.victim, images[:size])
    return line


def peak_mib(victim: Victim, batch: Tensor) -> float | None:
    """The most that torch allocates for one call, beside weights and images; on CUDA only."""
    if victim.device.type != "cuda":
        return None
    with deployed(victim, batch[:1]):
        before = torch.cuda.memory_allocated(victim.device)
        torch.cuda.reset_peak_memory_stats(victim.device)
        victim(batch)
    return (torch.cuda.max_memory_allocated(victim.device) - before) / 2**20


def write(folder: Path, frames: dict[str, pd.DataFrame]) -> None:
    """One CSV file per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)


def table(folder: Path, about: str) -> str:
    """What all victims under a folder came to, as Markdown; no column that is empty."""
    lines = pd.concat([pd.read_csv(file) for file in sorted(folder.glob("*/summary.csv"))])
    where = json.loads(lines.environment.iloc[0])
    commands = "\n".join(f"    {command}" for command in dict.fromkeys(lines.command))
    shown = lines.drop(columns=MADE).dropna(axis="columns", how="all")
    return (
        f"# {where['device_name']}\n\n{commands}\n\nDriver {where['driver']}, CUDA "
        f"{where['cuda']}, torch {where['torch']}, float32; per image; attacked by Slowdown at "
        '8/255. Weights "random": token counts, exits and gates are imposed by thresholds, and '
        "say nothing of a trained model; only the time of what runs does. Where clean against "
        "clean (aa) excludes 1, no ratio is given; an interval takes 6 batches. "
        f"{about}\n\n{markdown(shown.map(_rounded))}\n"
    )


def _attacked(name: str, victim: Victim, clean: Tensor) -> Tensor:
    attack = build(name, victim, EPS, 0)
    return torch.cat([attack(part).cpu() for part in clean.split(AT_ONCE)])


def _macs(victim: Victim, images: Tensor, size: int) -> int:
    return sum(count_macs(victim, batch) for batch in images.split(size))


def _ratio(rows: pd.DataFrame) -> Interval:
    return median_ratio(rows.seconds_attacked, rows.seconds_clean)


def _rounded(value: object) -> str:
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.4g}"
    return str(value)


def _command() -> str:
    return shlex.join(["python", *sys.argv])


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-")


if __name__ == "__main__":
    sys.exit(main())
