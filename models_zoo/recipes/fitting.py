"""The training loop of every recipe: one cycle of the rate, and a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> scalar."""
Augment = Callable[[Tensor, Generator], Tensor]
"""Training images of one batch -> what the network sees."""
Optimiser = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
"""Parameters and the rate at the top of the cycle -> their optimiser."""


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay 0.05."""
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05)


def sgd(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Nesterov momentum 0.9 and weight decay 5e-4: better than AdamW on plain convolutions."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)


def fit(
    model: nn.Module,
    loss: Loss,
    data: tuple[Tensor, Tensor],
    augment: Augment,
    *,
    epochs: int,
    rate: float,
    batch: int = 64,
    optimiser: Optimiser = adamw,
    checkpoint: Path | None = None,
) -> None:
    """One cycle of the learning rate; leaves the model in eval mode.

    Args:
        model: whose parameters are trained, on the device of its first one.
        loss: closes over the model, or over the victim around it.
        data: images and labels, on the CPU.
        augment: from images as stored to images in [0, 1].
        epochs, rate, batch: of the schedule.
        optimiser: ``adamw`` or ``sgd``.
        checkpoint: written after each epoch; where it exists, training goes on from it and ends
            as if it had never stopped.
    """
    images, labels = data
    device = next(model.parameters()).device
    generator = Generator().manual_seed(0)
    descent = optimiser(model.parameters(), rate)
    per_epoch = len(images) // batch
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, rate, total_steps=steps)
    model.train()
    first = _resume(checkpoint, model, descent, schedule, generator)
    started, done = time.monotonic(), first * per_epoch
    for epoch in range(first, epochs):
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(batch)[:per_epoch]:
            descent.zero_grad()
            value = loss(augment(images[rows], generator).to(device), labels[rows].to(device))
            value.backward()
            descent.step()
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
                "optimiser": descent.state_dict(),
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
