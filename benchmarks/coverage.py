"""How often the interval of savings retained holds the truth, and how wide it is.

    python benchmarks/coverage.py

Inputs of clean MACs between 20 and 80 % of the max move with a given probability: all the way to
the max (``all``), by a random share of their headroom (``part``), or below their clean MACs, by a
random share of them (``less``: controls may). Each cell says how often 95 % intervals of so many
simulations held the savings retained of the whole population, and how wide they were on average; a
second table has the percentile bootstrap of the same inputs. The third has the false alarms of
``--compare`` where nothing changed, one-sided at 2.5 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from effattack.measure.statistics import Floats, Interval
from effattack.results.resampling import compared, interval, savings, savings_retained

INPUTS = (6, 10, 20, 60, 200)
MOVING = (0, 0.02, 0.2, 0.5, 0.98, 1)
GAINS = ("all", "part", "less")
CEILING = 100.0
BOOTSTRAPS = 500


def drawn(rng: np.random.Generator, n: int, moving: float, gain: str) -> Floats:
    """(n, 3) attacked, clean and most MACs of n inputs."""
    clean = rng.uniform(20, 80, n)
    room = -clean if gain == "less" else CEILING - clean
    share = np.ones(n) if gain == "all" else rng.random(n)
    attacked = clean + (rng.random(n) < moving) * share * room
    return np.stack([attacked, clean, np.full(n, CEILING)], axis=1)


def truth_of(moving: float, gain: str) -> float:
    """Savings retained of the population: headroom and clean MACs are 50 % of the max on average,
    and a random share is a half."""
    return 1 + moving * {"all": -1, "part": -0.5, "less": 0.5}[gain]


def bootstrap(inputs: Floats, rng: np.random.Generator) -> Interval:
    """The rival: percentiles over resampled inputs."""
    n = len(inputs)
    weights = rng.multinomial(n, np.full(n, 1 / n), BOOTSTRAPS)
    low, high = np.quantile(savings_retained(weights @ inputs), [0.025, 0.975])
    return Interval(float(savings_retained(inputs.sum(0))), float(low), float(high))


def coverage(n: int, moving: float, gain: str, trials: int) -> list[str]:
    """Share of trials that held the truth, and mean width: ours, then the bootstrap's."""
    rng = np.random.default_rng(0)
    truth = truth_of(moving, gain)
    found: list[tuple[Interval, Interval]] = []
    for _ in range(trials):
        inputs = drawn(rng, n, moving, gain)
        found.append((savings(*inputs.T), bootstrap(inputs, rng)))
    cells = []
    for own in zip(*found, strict=True):
        held = np.mean([one.low - 1e-9 <= truth <= one.high + 1e-9 for one in own])
        cells.append(f"{held:.3f} ({np.mean([one.high - one.low for one in own]):.2f})")
    return cells


def alarms(n: int, moving: float, gain: str, trials: int) -> float:
    """How often savings retained were said to have fallen between two draws of the same kind."""
    rng = np.random.default_rng(1)

    def change(means: Floats) -> Floats:
        return savings_retained(means[..., :3]) - savings_retained(means[..., 3:])

    fallen = 0
    for _ in range(trials):
        now, then = (drawn(rng, n, moving, gain) for _ in range(2))
        fallen += interval(change, compared(change, now, then)).high < 0
    return fallen / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=400)
    trials = parser.parse_args().trials
    cells = {
        (gain, moving, n): coverage(n, moving, gain, trials)
        for gain in GAINS
        for moving in MOVING
        for n in INPUTS
    }
    for at, name in enumerate(("interval", "percentile bootstrap")):
        table(name, lambda *key, at=at: cells[key][at])
    table("false alarms", lambda *key: f"{alarms(key[2], key[1], key[0], trials):.3f}")


def table(name: str, cell: Callable[[str, float, int], str]) -> None:
    """Gains and probabilities of moving against numbers of inputs."""
    print(f"\n| {name}: gain | moving | {' | '.join(f'n = {n}' for n in INPUTS)} |")
    print(f"|---|---:|{'---:|' * len(INPUTS)}")
    for gain in GAINS:
        for moving in MOVING:
            found = [cell(gain, moving, n) for n in INPUTS]
            print(f"| {gain} | {moving} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
