"""How long AutoSlow takes to what DeepSloth finds in 50 steps, as a share of DeepSloth's time.

    python benchmarks/time_to_success.py --images 50 --rounds 6 --clock cpu_time

Per victim with exits, at the smallest ε of 1, 2, 4, 8 and 16 /255 at which DeepSloth takes back a
fifth of the savings. DeepSloth's time is that of its 50 steps, and that until it is first there
itself, as it keeps its best. All take turns in one process, in an order that is drawn anew.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from contextlib import suppress

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import Attack, AutoSlow, DeepSloth, Slowdown
from effattack.attacks.objectives import Step
from effattack.inputs.source import load_data, subset
from effattack.measure.clocks import Clock, CpuTimeClock, WallClock
from effattack.measure.statistics import median_ratio
from effattack.victim import Victim, load_victim
from effattack.victim.undisturbed import undisturbed

STEPS, LEAST = 50, 0.2


class Reached(Exception):
    """The work that was asked for has been found."""


def until(attack: Attack, images: Tensor, work: float) -> Callable[[], None]:
    """The attack, ended as soon as the images cost ``work`` MACs together.

    Raises:
        RuntimeError: when run, if it never gets there.
    """

    def watch(step: Step) -> None:
        if step.macs.sum().item() >= work:
            raise Reached

    def run() -> None:
        with suppress(Reached):
            attack(images, callback=watch)
            raise RuntimeError(f"{attack.name} never takes as much back as DeepSloth")

    return run


def spent(victim: Victim, images: Tensor) -> float:
    """MACs of the images together."""
    with torch.no_grad(), undisturbed(victim):
        return victim.trace(images).macs.sum().item()


def target(victim: Victim, images: Tensor) -> tuple[int, float, float]:
    """ε in 1/255, the work that DeepSloth finds there in ``STEPS``, and its attack success."""
    clean = spent(victim, images)
    saved = len(images) * victim.max_macs - clean
    for eps in (1, 2, 4, 8, 16):
        work = spent(victim, DeepSloth(victim, eps / 255, steps=STEPS)(images))
        if (success := (work - clean) / saved) >= LEAST:
            return eps, work, success
    raise RuntimeError(f"DeepSloth takes less than {LEAST:.0%} back from {victim.name}")


def measured(runs: dict[str, Callable[[], object]], clock: Clock, rounds: int) -> pd.DataFrame:
    """Seconds of every run, one row per round; a first round warms up."""
    order, shuffler, rows = list(runs), random.Random(0), []
    for _ in range(rounds + 1):
        shuffler.shuffle(order)
        rows.append({name: clock.time(runs[name]) for name in order})
    return pd.DataFrame(rows[1:])


def row(victim: Victim, images: Tensor, clock: Clock, rounds: int) -> dict[str, str]:
    """Seconds of DeepSloth, and the shares of them that others take to the same success."""
    eps, work, success = target(victim, images)
    sloth = DeepSloth(victim, eps / 255, steps=STEPS)
    runs: dict[str, Callable[[], object]] = {
        "whole": lambda: sloth(images),
        "DeepSloth itself": until(sloth, images, work),
        "`AutoSlow`": until(AutoSlow(victim, eps / 255), images, work),
        "`Slowdown(steps=12)`": until(Slowdown(victim, eps / 255, steps=12), images, work),
    }
    seconds = measured(runs, clock, rounds)
    told = {
        "victim": f"`{victim.name}`",
        "ε": f"{eps}/255",
        "DeepSloth's success": f"{success:.3f}",
        "its 50 steps": f"{seconds.whole.median():.2f} s",
    }
    for name in list(runs)[1:]:
        ratio = median_ratio(seconds[name], seconds["whole"])
        told[f"{name} / these"] = f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description="time to DeepSloth's success in 50 steps")
    exits = "digits_cnn_sdn,digits_cnn_early_exit,digits_msdnet,digits_vit_exit"
    cascades = "digits_tinysaver_cascade,digits_esn,digits_three_stage_cascade"
    parser.add_argument("--victims", default=f"{exits},{cascades}")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6, help="at least 6, for a 95 %% interval")
    parser.add_argument("--clock", choices=["wall", "cpu_time"], default="wall")
    args = parser.parse_args()
    clock = CpuTimeClock() if args.clock == "cpu_time" else WallClock(torch.device("cpu"))
    rows = []
    for name in args.victims.split(","):
        victim = load_victim(name)
        images, _ = subset(*load_data(None, victim), args.images)
        rows.append(row(victim, images, clock, args.rounds))
        print(rows[-1], flush=True)
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
