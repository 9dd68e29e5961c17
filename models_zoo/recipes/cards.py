"""The card of a trained victim: what it was trained on, how accurate it is, what it saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effattack.models_zoo.files import write_card
from effattack.victim import Victim

BATCH = 250


def share_right(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of images (B, C, H, W) in [0, 1] with labels (B,)."""
    with torch.no_grad():
        right = [
            (model(some).argmax(1) == truth).double().sum()
            for some, truth in zip(images.split(BATCH), labels.split(BATCH), strict=True)
        ]
    return (sum(right) / len(labels)).item()


def describe(
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    *,
    data: str,
    recipe: str,
    dense_accuracy: float,
    threshold: float | list[float] | None = None,
    **facts: Any,
) -> None:
    """Write the card of a victim from its test images, and whatever ``facts`` its factory needs.

    Prints its line.
    """
    with torch.no_grad():
        macs = torch.cat([victim.trace(some).macs for some in images.split(BATCH)])
    clean = macs.mean().item()
    card = {
        "name": victim.name,
        "family": victim.family,
        "data": data,
        "recipe": f"python -m effattack.models_zoo.train {recipe}",
        "accuracy": round(share_right(victim, images, labels), 4),
        "dense_accuracy": round(dense_accuracy, 4),
        "clean_macs": round(clean),
        "max_macs": round(victim.max_macs),
        "dense_macs": round(victim.dense_macs),
        "threshold": threshold,
        "parameters": sum(p.numel() for p in victim.parameters()),
        "torch": torch.__version__,
        **facts,
    }
    if hasattr(victim, "bit_operations"):
        card["clean_bit_operations"] = round(victim.bit_operations(macs).mean().item())
    write_card(victim.name, card)
    print(
        f"{victim.name}: accuracy {card['accuracy']:.2%} (dense {dense_accuracy:.2%}), clean MACs "
        f"{clean / victim.max_macs:.1%} of max, {clean / victim.dense_macs:.1%} of dense, "
        f"threshold {threshold}"
    )
