"""A training loop: one cycle of the rate, and a checkpoint after each epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
"""(inputs, labels) -> scalar."""
Augment = Callable[[Tensor, Generator], Tensor]
"""Training inputs of one batch -> what the network sees."""
Optimiser = Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]
"""Parameters and the rate at the top of the cycle -> their optimiser."""


class Epoch(NamedTuple):
    """A finished epoch, as whoever watches the training is told of it."""

    number: int
    """From 1 on."""
    epochs: int
    loss: float
    """Of its last batch."""
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"epoch {self.number}/{self.epochs}, loss {self.loss:.4f}, {self.seconds_left:.0f} s "
            "left"
        )


def printed(epoch: Epoch) -> None:
    """A line on the standard output."""
    print(f"  {epoch}", flush=True)


def adamw(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay 0.05."""
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05)


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
    generator: Generator | None = None,
    told: Callable[[Epoch], None] = printed,
) -> None:
    """One cycle of the learning rate; leaves the model in eval mode.

    Args:
        model: whose parameters are trained, on the device of its first one.
        loss: closes over the model, or over the victim around it.
        data: inputs and labels, on the CPU.
        augment: from inputs as stored to what the network takes.
        epochs, rate, batch: of the schedule.
        optimiser: ``adamw``, or another.
        checkpoint: written after each epoch; where it exists, training goes on from it and ends
            as if it had never stopped.
        generator: of all random numbers but those that the model draws itself; by default one of
            seed 0. A loss that draws from it, too, resumes with it.
        told: called after each epoch.
    """
    inputs, labels = data
    device = next(model.parameters()).device
    generator = generator or Generator().manual_seed(0)
    descent = optimiser(model.parameters(), rate)
    per_epoch = len(inputs) // batch
    steps = epochs * per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, rate, total_steps=steps)
    model.train()
    first = _resume(checkpoint, model, descent, schedule, generator)
    started, done = time.monotonic(), first * per_epoch
    for epoch in range(first, epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for rows in order.split(batch)[:per_epoch]:
            descent.zero_grad()
            value = loss(augment(inputs[rows], generator).to(device), labels[rows].to(device))
            value.backward()
            descent.step()
            schedule.step()
            done += 1
        left = (time.monotonic() - started) * (steps - done) / (done - first * per_epoch)
        if checkpoint is not None:
            state = {
                "epoch": epoch + 1,
                "model": model.state_dict(),
                "optimiser": descent.state_dict(),
                "schedule": schedule.state_dict(),
                "generator": generator.get_state(),
                "drawn by the model": torch.get_rng_state(),
            }
            partial = checkpoint.with_suffix(".part")
            torch.save(state, partial)
            partial.replace(checkpoint)
        told(Epoch(epoch + 1, epochs, value.item(), left))
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
    torch.set_rng_state(state["drawn by the model"])
    return int(state["epoch"])
