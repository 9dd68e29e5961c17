"""Training recipes of the embedded victims.

    python -m effattack.models_zoo.train NAME...

trains the weights that the named victims need, chooses thresholds on held-out images, and writes
``weights/`` and ``cards/``. Everything is seeded and runs on one thread; minutes of CPU each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.models_zoo import embedded
from effattack.models_zoo.cascade.cascade import saver_threshold
from effattack.models_zoo.digits import digits
from effattack.models_zoo.exits import Confidence, first_exit
from effattack.models_zoo.files import WEIGHTS, save_weights, write_card
from effattack.models_zoo.networks import base_cnn, exit_stages, small_vit, tiny_cnn
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


def train_vit() -> None:
    """The plain ViT under ``digits_vit_ats`` and ``digits_vit_int8``."""
    torch.manual_seed(1)
    vit = small_vit()
    fit(vit, cross_entropy(vit, smoothing=0.1), epochs=100, rate=1e-3)
    save_weights(vit, WEIGHTS / "digits_vit.safetensors")
    reference = accuracy(vit, "test")
    for factory in (embedded.digits_vit_ats, embedded.digits_vit_int8):
        describe(factory(), recipe="digits_vit", dense_accuracy=reference, threshold=None)


def train_early_exit() -> None:
    """All exits together, each classifier's cross-entropy weighted equally (SDN, section 4)."""
    torch.manual_seed(0)
    stages, heads = exit_stages()
    modules = nn.ModuleList([*stages, *heads])

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        total, features = images.new_zeros(()), images
        for stage, head in zip(stages, heads, strict=True):
            features = stage(features)
            total = total + F.cross_entropy(head(features), labels)
        return total

    fit(modules, loss, epochs=30, rate=5e-3)
    name = "digits_cnn_early_exit"
    save_weights(modules, WEIGHTS / f"{name}.safetensors")
    write_card(name, {"threshold": 1.0})
    victim = embedded.digits_cnn_early_exit()
    images, labels = digits("heldout")
    with torch.no_grad():
        stage_logits = victim.trace(images).stage_logits
    assert stage_logits is not None
    threshold = lowest_threshold(stage_logits, labels)
    write_card(name, {"threshold": threshold})
    describe(
        embedded.digits_cnn_early_exit(),
        recipe=name,
        dense_accuracy=accuracy(lambda x: last_stage(victim, x), "test"),
        threshold=threshold,
    )


def last_stage(victim: Victim, images: Tensor) -> Tensor:
    """Logits of the final classifier, whatever exit would be taken."""
    stage_logits = victim.trace(images).stage_logits
    assert stage_logits is not None
    return stage_logits[:, -1]


def lowest_threshold(stage_logits: Tensor, labels: Tensor, drop: float = 0.005) -> float:
    """The lowest confidence threshold whose accuracy is within ``drop`` of the last stage's.

    Args:
        stage_logits: (B, stages, classes) on held-out images.
        labels: (B,).
    """
    floor = (stage_logits[:, -1].argmax(1) == labels).double().mean() - drop
    rows = torch.arange(len(labels))
    for percent in range(1, 100):
        criterion = Confidence(percent / 100)
        internal = range(stage_logits.shape[1] - 1)
        margins = [criterion.margin(stage_logits[:, : k + 1]) for k in internal]
        answers = stage_logits[rows, first_exit(margins)[0].sum(1)].argmax(1)
        if (answers == labels).double().mean() >= floor:
            return percent / 100
    return 1.0


def train_cascade() -> None:
    """Saver and base trained apart; the threshold by TinySaver's rule."""
    torch.manual_seed(0)
    saver, base = tiny_cnn(), base_cnn()
    fit(saver, cross_entropy(saver), epochs=40, rate=1e-2)
    fit(base, cross_entropy(base), epochs=20, rate=3e-3)
    name = "digits_tinysaver_cascade"
    save_weights(nn.ModuleList([saver, base]), WEIGHTS / f"{name}.safetensors")
    write_card(name, {"threshold": 1.0})
    victim = embedded.digits_tinysaver_cascade()
    saver, base = victim.models
    images, labels = digits("heldout")
    with torch.no_grad():
        threshold = saver_threshold(saver(images), base(images), labels)
    write_card(name, {"threshold": threshold})
    describe(
        embedded.digits_tinysaver_cascade(),
        recipe=name,
        dense_accuracy=accuracy(base, "test"),
        threshold=threshold,
    )


def accuracy(model: Callable[[Tensor], Tensor], split: str) -> float:
    """Top-1 accuracy on a split of the digits."""
    images, labels = digits(split)
    with torch.no_grad():
        return (model(images).argmax(1) == labels).double().mean().item()


def describe(
    victim: Victim, *, recipe: str, dense_accuracy: float, threshold: float | None
) -> None:
    """Write the card of a trained victim and print its line."""
    images, _ = digits("test")
    with torch.no_grad():
        clean = victim.trace(images).macs.mean().item()
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
    write_card(victim.name, card)
    print(
        f"{victim.name}: accuracy {card['accuracy']:.2%} (dense {dense_accuracy:.2%}), clean MACs "
        f"{clean / victim.max_macs:.1%} of max, threshold {threshold}"
    )


RECIPES: dict[str, Callable[[], None]] = {
    "digits_vit": train_vit,
    "digits_vit_ats": train_vit,
    "digits_vit_int8": train_vit,
    "digits_cnn_early_exit": train_early_exit,
    "digits_tinysaver_cascade": train_cascade,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m effattack.models_zoo.train", description=__doc__
    )
    parser.add_argument("name", nargs="+", choices=sorted(RECIPES))
    names = parser.parse_args(arguments).name
    torch.set_num_threads(1)
    for recipe in dict.fromkeys(RECIPES[name] for name in names):
        print(recipe.__name__)
        recipe()
    return 0


if __name__ == "__main__":
    sys.exit(main())
