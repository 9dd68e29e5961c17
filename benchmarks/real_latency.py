"""Seconds of real systems: the deployed path on clean and attacked inputs, in ABBA order, in pairs.

    python benchmarks/real_latency.py lightglue PHOTOGRAPHS
    python benchmarks/real_latency.py whisper RECORDINGS
    python benchmarks/real_latency.py ats                      # smollm2
    python benchmarks/real_latency.py --table

Attacked inputs are made again as ``real_systems.py`` makes them; recordings are read from their
files, prompts from their rows, the patch from its picture. What is read is the processor time of
one thread, so that other processes of the machine matter less; what counts is the least call of an
arm. The clean input is also timed beside itself, as a guard. Inputs are the units: six carry an
interval. A row that is there is not run again. MTCNN is timed where it is attacked, beside
facenet-pytorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from tables import markdown

from effattack.cells.spec import code_version
from effattack.domains import Batch
from effattack.measure.clocks import CpuTimeClock, deployed
from effattack.measure.environment import cpu_model
from effattack.measure.latency import time_abba
from effattack.measure.statistics import FEWEST, Interval, median_ratio
from effattack.victim import Victim

SECONDS = 2.0
"""Of passes over one pair, at least; one pass is four calls."""
ROWS = Path(__file__).parents[1] / "reports" / "real" / "latency.jsonl"


class Pair(NamedTuple):
    """An input of which the clean and the attacked form are timed."""

    name: str
    make: Callable[[], tuple[Batch, Batch]]


Pairs = tuple[Victim, Iterator[Pair]]


def lightglue(photographs: Path) -> Pairs:
    """The first pairs that were measured."""
    from systems import lightglue as system

    victim = system.LightGlue.from_package()

    def make(file: Path, seed: int) -> tuple[Batch, Batch]:
        pair, _ = system.pair_of(file, seed)
        return pair, system.attacked(victim, pair, seed, right=False)

    files = [*enumerate(sorted(photographs.iterdir()))][system.LOOKED_AT :]
    return victim, (Pair(file.name, partial(make, file, seed)) for seed, file in files)


def whisper(recordings: Path) -> Pairs:
    """The spoken sentences at the first budget; their recordings are kept."""
    from systems import whisper as system

    victim = system.whisper_tiny()

    def make(number: int) -> tuple[Batch, Batch]:
        clean = system.spoken(system.SENTENCES[number])
        cell = system.Cell(system.ATTACKS[1], system.BUDGETS[0], number)
        return clean, system.heard(victim, cell, clean, recordings)

    sentences = enumerate(system.SENTENCES)
    return victim, (Pair(said, partial(make, number)) for number, said in sentences)


def ats(_: Path | None) -> Pairs:
    """The first photographs that were measured, with the learnt patch."""
    from systems import ats as system

    victim = system.vit_tiny_ats()
    attack = system.attacks(victim, system.ROWS.parent)["UniversalSlowdown"]
    images, labels = system.seen(1)

    def make(number: int) -> tuple[Batch, Batch]:
        one = slice(number, number + 1)
        return images[one], attack(images[one], labels[one])

    return victim, (Pair(str(number), partial(make, number)) for number in range(len(images)))


def smollm2(_: Path | None) -> Pairs:
    """The questions, and what a word more made of them."""
    import smollm2 as system

    victim, rows = system.loaded(system.CAP), system.stored(system.ROWS)

    def make(number: int, question: str) -> tuple[Batch, Batch]:
        ids = rows[system.Cell("suffix:1", system.HOUSE, number)]["ids"]
        return system.asked(victim, [question]), torch.tensor([ids])

    questions = enumerate(system.QUESTIONS)
    return victim, (Pair(asked, partial(make, number, asked)) for number, asked in questions)


SYSTEMS: dict[str, Callable[[Any], Pairs]] = {
    "lightglue": lightglue,
    "whisper": whisper,
    "ats": ats,
    "smollm2": smollm2,
}


OF_FILES = ("lightglue", "whisper")
"""They are given a folder: of photographs, of recordings."""


def timed(victim: Victim, clean: Batch, attacked: Batch) -> dict[str, float]:
    """Least seconds of each arm, and of the clean input beside itself."""
    clock, before, after = CpuTimeClock(), partial(victim, clean), partial(victim, attacked)
    with deployed(victim, clean):
        ((first, again),) = time_abba(clock, [(before, before)], seconds=SECONDS)
        ((quick, slow),) = time_abba(clock, [(before, after)], seconds=SECONDS)
    return {
        "seconds_clean": quick,
        "seconds_attacked": slow,
        "clean_beside_clean": again / first,
    }


def run(system: str, folder: Path | None, inputs: int, rows: Path) -> None:
    """Pairs that are not there yet, each kept as soon as it is."""
    victim, pairs = SYSTEMS[system](folder)
    done = {line["input"] for line in kept(rows) if line["system"] == system}
    for pair, _ in zip(pairs, range(inputs), strict=False):
        if pair.name in done:
            continue
        found = timed(victim, *pair.make())
        about = {"cpu": cpu_model(), "torch": torch.__version__, "code": code_version()}
        keep(rows, {"system": system, "input": pair.name, **found, **about})
        print(
            system,
            pair.name,
            f"{found['seconds_attacked'] / found['seconds_clean']:.2f}",
            flush=True,
        )


def ratio(lines: list[dict[str, Any]], system: str) -> Interval:
    """Attacked over clean: the median over inputs, with its interval."""
    mine = [line for line in lines if line["system"] == system]
    arms = ("seconds_attacked", "seconds_clean")
    return median_ratio(*([line[arm] for line in mine] for arm in arms))


def table(lines: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per system."""
    shown = []
    for system, some in pd.DataFrame(lines).groupby("system", sort=False):
        beside = some.clean_beside_clean
        shown.append(
            {
                "system": system,
                "inputs": len(some),
                "clean, s": f"{some.seconds_clean.median():.3f}",
                "attacked, s": f"{some.seconds_attacked.median():.3f}",
                "attacked / clean": written(ratio(lines, str(system))),
                "clean / clean": f"{beside.min():.3f} to {beside.max():.3f}",
            }
        )
    return pd.DataFrame(shown)


def written(interval: Interval) -> str:
    """×12.34 [10.12, 15.01]; of fewer than six inputs without bounds."""
    if isnan(interval.low):
        return "–" if isnan(interval.value) else f"×{interval.value:.2f}"
    return f"×{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def main() -> None:
    parser = parser_of("seconds of real systems, clean and attacked", ROWS)
    parser.add_argument("system", nargs="?", choices=sorted(SYSTEMS))
    parser.add_argument("folder", type=Path, nargs="?", help=f"for {' and '.join(OF_FILES)}")
    parser.add_argument("--inputs", type=int, default=FEWEST, help="how many pairs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(kept(args.rows))))
    elif args.system is None or (args.system in OF_FILES and args.folder is None):
        parser.error(f"name a system, and a folder for {' and '.join(OF_FILES)}")
    else:
        run(args.system, args.folder, args.inputs, args.rows)


if __name__ == "__main__":
    main()
