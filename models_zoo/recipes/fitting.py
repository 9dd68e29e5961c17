"""The training loop of every recipe: AdamW, one cycle, and a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> scalar."""
Augment = Callable[[Tensor, Generator], Tensor]
"""Training images of one batch -> what the network sees."""


def fit(
    model: nn.Module,
    loss: Loss,
    data: tuple[Tensor, Tensor],
    augment: Augment,
    *,
    epochs: int,
    rate: float,
    batch: int = 64,
    checkpoint: Path | None = None,
) -> None:
    """AdamW with a one-cycle schedule; leaves the model in eval mode.

    Args:
        model: whose parameters are trained, on the device of its first one.
        loss: closes over the model, or over the victim around it.
        data: images and labels, on the CPU.
        augment: from images as stored to images in [0, 1].
        epochs, rate, batch: of the schedule.
        checkpoint: written after each epoch; where it exists, training goes on from it and ends
            as if it had never stopped.
    """
    images, labels = data
    device = next(model.parameters()).device
    generator = Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    per_epoch = len(images) // batch
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    first = _resume(checkpoint, model, optimiser, schedule, generator)
    started, done = time.monotonic(), first * per_epoch
    for epoch in range(first, epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(batch)[:per_epoch]:
            optimiser.zero_grad()
            value = loss(augment(images[rows], generator).to(device), labels[rows].to(device))
            value.backward()
            optimiser.step()
            schedule.step()
            done += 1
        left = (time.monotonic() - started) * (steps - done) / (done - first * per_epoch)
        print(
            f"  epoch {epoch + 1}/{epochs}, loss {value.item():.4f}, {left:.0f} s left", flush=True
        )
        if checkpoint is not None:
            state = {
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
                "generator": generator.get_state(),
            }
            partial = checkpoint.with_suffix(".part")
            torch.save(state, partial)
            partial.replace(checkpoint)
    model.eval()


def _resume(
    checkpoint: Path | None,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: Generator,
) -> int:
    """Put everything back as it was after the last finished epoch; its number."""
    if checkpoint is None or not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    generator.set_state(state["generator"])
    return int(state["epoch"])


def shifted(images: Tensor, pixels: int, generator: Generator) -> Tensor:
    """Every image moved by up to ``pixels`` in both directions, edges repeated."""
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    size = images.shape[-1]
    moves = torch.randint(0, 2 * pixels + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)]
    )


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Half of the images, left and right exchanged."""
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(-1), images)
