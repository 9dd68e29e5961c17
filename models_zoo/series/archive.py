"""Early classification of series from the UCR archive, which the wheel of ``aeon`` brings along.

Name a victim by its path, ``effattack.models_zoo.series.archive:italy_power_demand``. Its files are
found where ``pip install --no-deps aeon`` has put them; aeon itself is not imported. A GRU is
trained when it is first asked for (seconds to a minute) and kept in the user's cache.

The series come as the archive has them, each scaled to mean 0 and deviation 1 over its whole
length. A device that stops reading cannot do that; what an attacker takes back is comparable all
the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from effattack.domains.series import Series
from effattack.errors import UsageError
from effattack.inputs.series_files import read_ts
from effattack.models_zoo.files import load_weights, save_weights
from effattack.models_zoo.recipes import fitting
from effattack.models_zoo.recipes.early_exit import all_exits
from effattack.models_zoo.series.early_reading import EarlyReading
from effattack.models_zoo.series.readers import GRUReader


class Set(NamedTuple):
    """A data set of the archive, and how it is learnt."""

    name: str
    length: int
    classes: int
    every: int
    """Steps between two looks of the classifier; the reader takes them together."""
    epochs: int


ITALY_POWER_DEMAND = Set("ItalyPowerDemand", length=24, classes=2, every=1, epochs=40)
GUN_POINT = Set("GunPoint", length=150, classes=2, every=5, epochs=300)
OSU_LEAF = Set("OSULeaf", length=427, classes=6, every=7, epochs=100)
DOMAIN = partial(Series, 1, low=-8, high=8, step=2**-10, deviation=1)
"""By the length of the series: what a sensor of 14 bits resolves, deviations of the scaled series.
"""
CONFIDENCE = 0.9
"""At which reading stops: the sets are too small to hold series out for choosing it."""
BATCH = 8


def italy_power_demand() -> EarlyReading:
    """Winter or summer, from a day's demand for power: 24 steps, a look after each."""
    return _victim("italy_power_demand", ITALY_POWER_DEMAND)


def gun_point() -> EarlyReading:
    """A hand that draws a gun, or points: 150 steps, a look after every 5."""
    return _victim("gun_point", GUN_POINT)


def osu_leaf() -> EarlyReading:
    """Six trees by the outline of a leaf: 427 steps, a look after every 7."""
    return _victim("osu_leaf", OSU_LEAF)


def italy_power_demand_test() -> tuple[Tensor, Tensor]:
    """1029 series (B, 1, 24) and their labels."""
    return read(ITALY_POWER_DEMAND, "TEST")


def gun_point_test() -> tuple[Tensor, Tensor]:
    """150 series (B, 1, 150) and their labels."""
    return read(GUN_POINT, "TEST")


def osu_leaf_test() -> tuple[Tensor, Tensor]:
    """242 series (B, 1, 427) and their labels."""
    return read(OSU_LEAF, "TEST")


def read(kind: Set, split: str) -> tuple[Tensor, Tensor]:
    """Series, on the grid of their domain, and labels of the split TRAIN or TEST.

    Raises:
        UsageError: where aeon is not installed.
    """
    series, labels = read_ts(_file(kind, split))
    return DOMAIN(kind.length).snap(series), labels


def _file(kind: Set, split: str) -> Path:
    package = find_spec("aeon")
    if package is None or package.origin is None:
        raise UsageError(
            f"{kind.name} comes with aeon, which is not installed: pip install --no-deps aeon"
        )
    folder = Path(package.origin).parent / "datasets" / "data" / kind.name
    return folder / f"{kind.name}_{split}.ts"


def _victim(factory: str, kind: Set) -> EarlyReading:
    torch.manual_seed(0)
    victim = EarlyReading(
        GRUReader(channels=1, width=32, frame=kind.every),
        DOMAIN(kind.length),
        every=kind.every,
        classes=kind.classes,
        criterion=CONFIDENCE,
        name=factory,
        data=f"{__name__}:{factory}_test",
    )
    weights = _cache(kind)
    if not weights.exists():
        with redirect_stdout(sys.stderr):
            print(f"{factory}: trained once, kept as {weights}", flush=True)
            _train(victim, kind)
        save_weights(victim, weights)
    load_weights(victim, weights)
    return victim.eval()


def _train(victim: EarlyReading, kind: Set) -> None:
    fitting.fit(
        victim,
        all_exits(victim.stages, victim.heads),
        read(kind, "TRAIN"),
        _jittered,
        epochs=kind.epochs,
        rate=1e-2,
        batch=BATCH,
    )


def _jittered(series: Tensor, generator: Generator) -> Tensor:
    return series + 0.05 * torch.randn(series.shape, generator=generator)


def _cache(kind: Set) -> Path:
    """Where the weights are kept: under another name once the recipe or the data change."""
    recipe = Path(__file__).read_bytes() + _file(kind, "TRAIN").read_bytes()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "effattack"
    return folder / f"{kind.name}-{hashlib.sha256(recipe).hexdigest()[:16]}.safetensors"
