"""PGD steps per second: our search against other libraries and a bare loop, side by side.

    python benchmarks/attack_speed.py --victim digits_vit_ats --images 32 --steps 50 --rounds 8

All rivals attack the cross-entropy of the same ``trace(images).logits`` on the same batch in l-inf
with random start, and take turns in one process, in an order that is drawn anew every round.
All judge their last iterate, by one forward: whoever returns it unseen does not know what was
found. ``ours`` also rounds every iterate to 8 bits, judges it by executed MACs and keeps the best,
for which it looks at the clean images, one forward more. The libraries run as such, without what
our adapters add. The victim's max MACs are set out of reach, so that no image leaves early. Ratios
are medians over rounds, with their interval; above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import foolbox
import pandas as pd
import torch
import torchattacks
from tables import markdown
from torch import Tensor
from torch.nn import functional as F

from effattack.attacks.base import Composed
from effattack.attacks.foreign.adapters import TracedLogits
from effattack.attacks.objectives import Goal
from effattack.attacks.searches.projected import ProjectedGradient, constant
from effattack.inputs.source import load_data
from effattack.measure.clocks import Clock, CpuTimeClock, WallClock
from effattack.measure.environment import environment
from effattack.measure.statistics import median_ratio
from effattack.threats import Linf
from effattack.victim import Trace, Victim, load_victim
from effattack.victim.undisturbed import undisturbed

EPS, STEP = 8 / 255, 2 / 255


@dataclass(frozen=True)
class CrossEntropy:
    """What accuracy attacks raise: the cross-entropy of the labels."""

    def check(self, trace: Trace, victim: Victim) -> None:
        """Every victim has logits."""

    def __call__(self, trace: Trace, goal: Goal) -> Tensor:
        return F.cross_entropy(trace.logits, goal.labels, reduction="none")


def bare_loop(victim: Victim, images: Tensor, labels: Tensor, steps: int) -> Tensor:
    """PGD as one would write it by hand."""
    adversarial = (images + torch.empty_like(images).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(steps):
        adversarial.requires_grad_()
        loss = F.cross_entropy(victim.trace(adversarial).logits, labels)
        (gradient,) = torch.autograd.grad(loss, adversarial)
        moved = adversarial.detach() + STEP * gradient.sign()
        adversarial = (images + (moved - images).clamp(-EPS, EPS)).clamp(0, 1)
    return adversarial


def rivals(
    victim: Victim, images: Tensor, labels: Tensor, steps: int
) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name."""
    search = ProjectedGradient(steps, constant(STEP / EPS))
    ours = Composed(victim, Linf(EPS), CrossEntropy(), search)
    model = TracedLogits(victim).eval()
    theirs = torchattacks.PGD(model, eps=EPS, alpha=STEP, steps=steps)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps)

    def alone(attack: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        with undisturbed(victim):
            return attack(*inputs, **options)

    def judged(found: Tensor) -> Tensor:
        with torch.no_grad(), undisturbed(victim):
            return victim.trace(found).macs

    return {
        "ours": lambda: ours(images, labels),
        "bare loop": lambda: judged(alone(bare_loop, victim, images, labels, steps)),
        "torchattacks PGD": lambda: judged(alone(theirs, images, labels)),
        "foolbox LinfPGD": lambda: judged(alone(linf, wrapped, images, labels, epsilons=EPS)[1]),
    }


def measured(
    runs: dict[str, Callable[[], Tensor]], clock: Clock, rounds: int, autocast: str | None
) -> pd.DataFrame:
    """Seconds of every rival, one row per round; a first round warms up."""
    order, shuffler, rows = list(runs), random.Random(0), []
    for _ in range(rounds + 1):
        shuffler.shuffle(order)
        with torch.autocast(autocast or "cpu", torch.bfloat16, enabled=autocast is not None):
            rows.append({name: clock.time(runs[name]) for name in order})
    return pd.DataFrame(rows[1:])


def table(seconds: pd.DataFrame, steps: int) -> pd.DataFrame:
    """Steps per second of every rival, and how many times as fast ours is."""
    rows = []
    for name in seconds.columns:
        ratio = median_ratio(seconds[name], seconds["ours"])
        rows.append(
            {
                "attack": name,
                "steps per second": f"{steps / seconds[name].median():.1f}",
                "ours / this": f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="PGD steps per second, side by side")
    parser.add_argument("--victim", default="digits_vit_ats")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=8, help="at least 6, for a 95 %% interval")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu_time"],
        default="wall",
        help="cpu_time counts this process alone: for a CPU that others use too",
    )
    parser.add_argument("--autocast", action="store_true", help="in bfloat16")
    parser.add_argument("--out", type=Path, help="CSV of the seconds of every round")
    args = parser.parse_args()
    device = torch.device(args.device)
    victim = load_victim(args.victim).to(device)
    images, labels = (part[: args.images].to(device) for part in load_data(None, victim))
    victim.max_macs = math.inf
    seconds = measured(
        rivals(victim, images, labels, args.steps),
        CpuTimeClock() if args.clock == "cpu_time" else WallClock(device),
        args.rounds,
        device.type if args.autocast else None,
    )
    if args.out:
        seconds.to_csv(args.out, index=False)
    print(
        f"{args.victim}, {len(images)} images, {args.steps} steps, {args.rounds} rounds, clock "
        f"{args.clock}, {'bfloat16 autocast' if args.autocast else 'float32'}, "
        f"{environment(device)['device_name']}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}\n\n{markdown(table(seconds, args.steps))}"
    )


if __name__ == "__main__":
    main()
