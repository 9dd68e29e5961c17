"""A user's own early exits on 8 x 8 digits: trained in a second, and easily slowed."""

from __future__ import annotations

import copy
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import EarlyExit

SPLITS = {"train": (0, 600), "heldout": (600, 900), "test": (900, 1200)}
EPS = 16 / 255


@cache
def small_digits(split: str) -> tuple[Tensor, Tensor]:
    """Images (B, 1, 8, 8) on the 8-bit grid, and labels."""
    pixels, labels = load_digits(return_X_y=True)
    first, last = SPLITS[split]
    rows = torch.randperm(len(labels), generator=Generator().manual_seed(0))[first:last]
    images = torch.tensor(pixels * 15 / 255, dtype=torch.float32).view(-1, 1, 8, 8)
    return images[rows], torch.tensor(labels)[rows]


def own_exits(threshold: float | tuple[float, ...] = 0.9) -> EarlyExit:
    """A trained copy, to be changed at will."""
    victim = copy.deepcopy(_trained())
    victim.criterion.thresholds = threshold
    return victim


@cache
def _trained() -> EarlyExit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = [(1, 4, 2), (4, 16, 1), (16, 32, 1)]
        stages = [nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.ReLU()) for i, o, s in sizes]
        heads = [nn.Sequential(nn.Flatten(), nn.Linear(16 * o, 10)) for _, o, _ in sizes]
        victim = EarlyExit(stages, heads, 0.9, input_shape=(1, 8, 8), name="own exits")
        images, labels = small_digits("train")
        optimizer = torch.optim.AdamW(victim.parameters(), 5e-3)
        for _ in range(15):
            for rows in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                said = victim.trace(images[rows]).stage_logits
                assert said is not None
                sum(F.cross_entropy(z, labels[rows]) for z in said.unbind(1)).backward()
                optimizer.step()
    return victim.eval()
