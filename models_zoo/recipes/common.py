"""What recipes share: the training loop, and the card of the result."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo.digits import digits
from effattack.models_zoo.files import write_card
from effattack.victim import Victim

Loss = Callable[[Tensor, Tensor], Tensor]
"""(images, labels) -> scalar."""


def shifted(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Every image moved by up to ``pixels`` in both directions, edges repeated."""
    padded = F.pad(images, (pixels,) * 4, mode="replicate")
    size = images.shape[-1]
    moves = torch.randint(0, 2 * pixels + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack(
        [p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, moves, strict=True)]
    )


def fit(model: nn.Module, loss: Loss, *, epochs: int, rate: float, batch: int = 64) -> None:
    """AdamW with a one-cycle schedule on shifted training digits; leaves the model in eval mode."""
    images, labels = digits("train")
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    model.train()
    started, done = time.monotonic(), 0
    while done < steps:
        order = torch.randperm(len(images), generator=generator)
        for rows in order.split(batch)[: len(images) // batch]:
            optimiser.zero_grad()
            value = loss(shifted(images[rows], 3, generator), labels[rows])
            value.backward()
            optimiser.step()
            schedule.step()
            done += 1
        left = (time.monotonic() - started) * (steps - done) / done
        print(f"\r  step {done}/{steps}, loss {value.item():.4f}, {left:.0f} s left ", end="")
    print()
    model.eval()


def cross_entropy(model: nn.Module, smoothing: float = 0.0) -> Loss:
    """Cross-entropy of one classifier, labels smoothed by a share."""
    return lambda images, labels: F.cross_entropy(model(images), labels, label_smoothing=smoothing)


def straight_through(value: Tensor, threshold: float) -> Tensor:
    """1 where the value exceeds the threshold, else 0, with the gradient of the value."""
    return (value > threshold).to(value.dtype) + value - value.detach()


def accuracy(model: Callable[[Tensor], Tensor], split: str) -> float:
    """Top-1 accuracy on a split of the digits."""
    images, labels = digits(split)
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def describe(
    victim: Victim,
    *,
    recipe: str,
    dense_accuracy: float,
    threshold: float | list[float] | None = None,
) -> None:
    """Write the card of a trained victim and print its line."""
    images, _ = digits("test")
    with torch.no_grad():
        macs = victim.trace(images).macs
    clean = macs.mean().item()
    card = {
        "name": victim.name,
        "family": victim.family,
        "data": "scikit-learn digits enlarged to 3 x 32 x 32: 1197 training, 300 held-out, "
        "300 test images (effattack.models_zoo.digits)",
        "recipe": f"python -m effattack.models_zoo.train {recipe}",
        "accuracy": round(accuracy(victim, "test"), 4),
        "dense_accuracy": round(dense_accuracy, 4),
        "clean_macs": round(clean),
        "max_macs": round(victim.max_macs),
        "dense_macs": round(victim.dense_macs),
        "threshold": threshold,
        "parameters": sum(p.numel() for p in victim.parameters()),
        "torch": torch.__version__,
    }
    if hasattr(victim, "bit_operations"):
        card["clean_bit_operations"] = round(victim.bit_operations(macs).mean().item())
    write_card(victim.name, card)
    print(
        f"{victim.name}: accuracy {card['accuracy']:.2%} (dense {dense_accuracy:.2%}), clean MACs "
        f"{clean / victim.max_macs:.1%} of max, {clean / victim.dense_macs:.1%} of dense, "
        f"threshold {threshold}"
    )
