"""A denoising sampler that stops once its change is small, attacked by the picture it starts from.

    python benchmarks/denoising.py
    python benchmarks/denoising.py --table

A network that takes noise of any size out of digits in one go is asked again and again, and the
picture moves a part of the way each time, until what the network would still change is below a
tolerance (Kadkhodaie and Simoncelli 2021, arXiv 2007.13640, algorithm 1 with β = 1: no noise is
put in). Cost is steps, of equal MACs; the picture it stops at is read by a linear classifier. The
network is trained here, in seconds, the same each time; the tolerance is the one whose pictures are
nearest to held-out digits without noise. Inputs are test digits with Gaussian noise, which the
attacker sees, and changes within ε. Rows that are there are not run again.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from kept_rows import command
from tables import markdown
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.attacks import build
from effattack.counting.macs import count_macs
from effattack.domains.pixels import to_grid
from effattack.models_zoo.digits import CLASSES, SMALL, small_digits
from effattack.models_zoo.exits import chain_trace
from effattack.threats import parse_threat
from effattack.victim import Trace, Victim, audit
from effattack.victim.margins import bounded

PIXELS, WIDTH = 64, 192
NOISE, MOST_NOISE = 0.15, 0.4
"""Standard deviations: of the inputs, and the largest that the network is trained on."""
LEAST = 0.05
"""Added to the size of the noise that an error is a share of: small noise counts, none does not."""
EPOCHS, BATCH, RATE = 150, 128, 2e-3
FIRST, CAP = 0.1, 40
"""Share of the way at the first step, h₀ of the paper, and most steps."""
TOLERANCES = (0.03, 0.02, 0.015, 0.01, 0.005)
"""Root mean squares, of which one is chosen."""
BUDGETS = ("linf:4/255", "linf:8/255", "linf:16/255", "linf:1")
CLEAN = "clean"
ATTACKS = ("noise", "BestOfRandom(draws=153)", "Slowdown(steps=50)")
"""Random points cost as many runs as the attack: its steps and start, a gradient counting three."""
IMAGES = 100
ROWS = Path(__file__).with_suffix(".jsonl")


class Sampler(Victim):
    """Moves pictures (B, 1, 8, 8) until the network's root mean square change is below a tolerance.

    Step t goes h = h₀ t / (1 + h₀ (t - 1)) of the way. One gate per step but the last, ``steps.t``:
    active where another one follows.

    Args:
        denoiser: pictures (B, 64) -> what is to be added to them, (B, 64).
        reader: pictures (B, 64) -> logits.
        tolerance: root mean square of what would be added, in [0, 1] pixels.
        cap: most steps.
    """

    def __init__(
        self, denoiser: nn.Module, reader: nn.Module, tolerance: float, cap: int = CAP
    ) -> None:
        blank = torch.zeros(1, PIXELS)
        step, read = count_macs(denoiser, blank), count_macs(reader, blank)
        spent = [t * step + read for t in range(1, cap + 1)]
        super().__init__(
            name="denoising sampler",
            family="early exit",
            input_shape=SMALL,
            num_classes=CLASSES,
            max_macs=spent[-1],
            dense_macs=spent[-1],
        )
        self.denoiser, self.reader = denoiser, reader
        self.tolerance, self.cap, self.spent_by = tolerance, cap, spent
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.reader(self.denoised(images))

    def denoised(self, images: Tensor) -> Tensor:
        """(B, 64): the pictures that it stops at; those that have stopped take no more steps."""
        pictures = images.flatten(1)
        moving, going = pictures, torch.arange(len(images), device=images.device)
        for t in range(1, self.cap + 1):
            moving, change = self._moved(moving, t)
            pictures = pictures.index_copy(0, going, moving)
            on = change >= self.tolerance
            moving, going = moving[on], going[on]
            if not len(going):
                break
        return pictures

    def trace(self, images: Tensor) -> Trace:
        moving, logits, changes = images.flatten(1), [], []
        for t in range(1, self.cap + 1):
            moving, change = self._moved(moving, t)
            logits.append(self.reader(moving))
            changes.append(change)
        return chain_trace(
            torch.stack(logits, 1),
            margins=[bounded((change / self.tolerance).log(), 1.0) for change in changes[:-1]],
            names=[f"steps.{t}" for t in range(1, self.cap)],
            cumulative_macs=self.spent_by,
            decisions=[change >= self.tolerance for change in changes[:-1]],
        )

    def _moved(self, pictures: Tensor, t: int) -> tuple[Tensor, Tensor]:
        added = self.denoiser(pictures)
        change = added.square().mean(1).sqrt()
        return pictures + FIRST * t / (1 + FIRST * (t - 1)) * added, change


def noisy(split: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Digits (B, 1, 8, 8) with noise and without, both on the 8-bit grid, and labels."""
    clean, labels = small_digits(split)
    noise = torch.randn(clean.shape, generator=Generator().manual_seed(seed))
    return to_grid((clean + NOISE * noise).clamp(0, 1)), clean, labels


@cache
def networks() -> tuple[nn.Module, nn.Module]:
    """Denoiser (without biases, as published) and reader, trained on the training digits."""
    images, labels = small_digits("train")
    dice = Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = (PIXELS, WIDTH, WIDTH, PIXELS)
        layers = [nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)]
        denoiser = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        reader = nn.Linear(PIXELS, CLASSES)
    optimizer = torch.optim.Adam([*denoiser.parameters(), *reader.parameters()], RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=dice).split(BATCH):
            picture = images[rows].flatten(1)
            level = MOST_NOISE * torch.rand(len(rows), 1, generator=dice)
            noise = level * torch.randn(picture.shape, generator=dice)
            left = (denoiser(picture + noise) + noise) / (level + LEAST)
            loss = left.square().mean() + F.cross_entropy(reader(picture), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return denoiser.eval(), reader.eval()


@cache
def sampler() -> Sampler:
    """With the tolerance that is best on held-out digits."""
    images, clean, _ = noisy("heldout", seed=1)
    victims = [Sampler(*networks(), tolerance) for tolerance in TOLERANCES]
    return max(victims, key=lambda victim: psnr(victim, images, clean).mean().item())


@torch.no_grad()
def psnr(victim: Sampler, images: Tensor, clean: Tensor) -> Tensor:
    """(B,): decibels of the denoised pictures."""
    error = (victim.denoised(images) - clean.flatten(1)).square().mean(1)
    return -10 * error.log10()


def measured(eps: str, attack: str) -> dict[str, Any]:
    """Means over test digits: executed work, and how good the pictures are."""
    victim = sampler()
    images, clean, labels = (part[:IMAGES] for part in noisy("test", seed=2))
    if attack != CLEAN:
        images = build(attack, victim, parse_threat(eps), seed=0)(images, labels)
    done = audit(victim, images)
    steps = 1 + (done.macs - victim.spent_by[0]) / (victim.spent_by[1] - victim.spent_by[0])
    return {
        "images": len(images),
        "steps": steps.mean().item(),
        "at_cap": (steps == victim.cap).double().mean().item(),
        "macs": done.macs.mean().item(),
        "ceiling": victim.max_macs,
        "right": (done.logits.argmax(1) == labels).double().mean().item(),
        "psnr": psnr(victim, images, clean).mean().item(),
        "tolerance": victim.tolerance,
    }


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A line per budget and attack."""
    (clean,) = (row for row in rows if row["attack"] == CLEAN)
    lines = []
    for row in rows:
        back = (row["macs"] - clean["macs"]) / (row["ceiling"] - clean["macs"])
        lines.append(
            {
                "threat": row["eps"],
                "inputs": row["attack"],
                "steps": f"{row['steps']:.1f}",
                "MACs": f"{row['macs'] / 1e3:.0f} k",
                "savings retained": "" if row is clean else f"{1 - back:.1%}",
                "PSNR": f"{row['psnr']:.1f} dB",
                "accuracy": f"{row['right']:.0%}",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    command(
        "steps of a denoising sampler under attack",
        ROWS,
        ("eps", "attack"),
        [("", CLEAN), *product(BUDGETS, ATTACKS)],
        measured,
        lambda rows: markdown(table(rows)),
    )


if __name__ == "__main__":
    main()
