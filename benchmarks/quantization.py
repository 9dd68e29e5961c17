"""Quantization meets gates: what rounding does to decisions, clean and attacked.

    python benchmarks/quantization.py digits_cnn_early_exit --eps 3/255 --images 100

prints two Markdown tables for a victim in floats, dynamic int8, static int8 and int4 weights.

The first is of clean test images: accuracy, savings, and the decisions that are others than those
of the float victim; with the thresholds of the float victim, and with thresholds that the same rule
chose anew on held-out images. The second is of attacked ones: crafted on one form, judged on
another, each with the thresholds of the float victim. An attack on an int8 form sees its values and
work, and gradients straight through the rounding; the judged MACs are counted while the deployed
path runs.

CIFAR-10 and ImageNet images come from the folders that ``EFFATTACK_CIFAR10``,
``EFFATTACK_IMAGENET_DATA`` and ``EFFATTACK_IMAGENET_WEIGHTS`` name.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import imagenet_attacked
import numpy as np
import torch
from torch import Tensor

from effattack import Victim, audit
from effattack.attacks import build
from effattack.budgets import parse_eps, size_text
from effattack.inputs.source import subset
from effattack.models_zoo import load
from effattack.models_zoo.cifar10 import scored_images
from effattack.models_zoo.criteria import as_criterion
from effattack.models_zoo.digits import digits
from effattack.models_zoo.quantization.gated import QuantizedGates, StaticInt8Gates
from effattack.models_zoo.recipes.cascade import matched
from effattack.models_zoo.recipes.cifar10 import floats
from effattack.models_zoo.recipes.early_exit import lowest_threshold
from effattack.victim import Trace

Data = tuple[Tensor, Tensor]
"""Images (B, C, H, W) in [0, 1] and labels (B,)."""
BATCH = 50


class Subject(NamedTuple):
    """A gated victim, and what it is quantized and judged with."""

    build: Callable[[], Victim]
    heldout: Callable[[], Data]
    """What ranges and thresholds are chosen on."""
    test: Callable[[], Data]
    rule: Callable[[Tensor, Tensor], float] | None = None
    """Held-out logits (B, stages, classes) and labels -> threshold; None where there is none."""


SUBJECTS = {
    "digits_cnn_early_exit": Subject(
        partial(load, "digits_cnn_early_exit"),
        partial(digits, "heldout"),
        partial(digits, "test"),
        lowest_threshold,
    ),
    "digits_tinysaver_cascade": Subject(
        partial(load, "digits_tinysaver_cascade"),
        partial(digits, "heldout"),
        partial(digits, "test"),
        matched,
    ),
    "digits_vit_ats": Subject(
        partial(load, "digits_vit_ats"), partial(digits, "heldout"), partial(digits, "test")
    ),
    "cifar10_sdn": Subject(
        partial(load, "cifar10_sdn"),
        partial(floats, "heldout"),
        scored_images,
        partial(lowest_threshold, drop=0.01),
    ),
    "vit_tiny_ats": Subject(
        imagenet_attacked.vit_tiny_ats,
        partial(imagenet_attacked.seen, 0),
        partial(imagenet_attacked.seen, 1),
    ),
}
FORMS: dict[str, Callable[[Victim, Tensor], Victim]] = {
    "float32": lambda victim, _: victim,
    "int8 dynamic": lambda victim, _: QuantizedGates(victim, name=f"{victim.name}_int8_dynamic"),
    "int8 static": lambda victim, ranges: StaticInt8Gates(
        victim, ranges, name=f"{victim.name}_int8_static"
    ),
    "int4 weight-only": lambda victim, _: QuantizedGates(
        victim, scheme="int4_weight_only", name=f"{victim.name}_int4"
    ),
}
ATTACKED = ("float32", "int8 dynamic", "int8 static")
"""Weights alone do not round what a gate sees of an image."""


def main() -> None:
    parser = argparse.ArgumentParser(description="what rounding does to decisions")
    parser.add_argument("victim", choices=SUBJECTS)
    parser.add_argument("--eps", type=parse_eps, nargs="+", default=[8 / 255])
    parser.add_argument("--images", type=int, default=100, help="attacked images (100)")
    parser.add_argument("--clean", type=int, default=5000, help="clean images at most (5000)")
    parser.add_argument("--ranges", type=int, default=300, help="images that fix ranges (300)")
    parser.add_argument("--attack", default="Slowdown(steps=50)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    subject = SUBJECTS[args.victim]
    heldout, test = subject.heldout(), subject.test()
    ranges = subset(*heldout, args.ranges)[0]
    forms = {name: make(subject.build(), ranges) for name, make in FORMS.items()}
    test = subset(*test, args.clean)
    print(f"{len(test[0])} clean images:\n")
    show(clean_rows(subject, forms, heldout, ranges, test))
    images, labels = subset(*test, args.images)
    attacked = {name: forms[name] for name in ATTACKED}
    for eps in args.eps:
        print(f"\n{len(images)} attacked images, {args.attack}, eps {size_text('linf', eps)}:\n")
        show(attacked_rows(attacked, args.attack, eps, images, labels))


def show(rows: Iterable[dict[str, str]]) -> None:
    """Print a Markdown table, each row as soon as it is there."""
    for number, row in enumerate(rows):
        if number == 0:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(row.values())} |", flush=True)


def clean_rows(
    subject: Subject, forms: dict[str, Victim], heldout: Data, ranges: Tensor, test: Data
) -> Iterator[dict[str, str]]:
    """One row per form; two where its threshold can be chosen anew."""
    exact = traced(forms["float32"], test[0])
    for name, victim in forms.items():
        about = {"form": name, "threshold": kept_threshold(victim)}
        yield about | clean_scores(victim, exact, test)
        if subject.rule is None or name == "float32":
            continue
        logits = traced(victim, heldout[0]).stage_logits
        assert logits is not None
        threshold = subject.rule(logits, heldout[1])
        anew: Any = subject.build()
        anew.criterion = as_criterion(threshold, logits.shape[1] - 1)
        about = {"form": name, "threshold": f"{threshold:g}, anew"}
        yield about | clean_scores(FORMS[name](anew, ranges), exact, test)


def kept_threshold(victim: Any) -> str:
    """The confidence threshold that a victim was made with; a dash where it has none."""
    criterion = getattr(getattr(victim, "float_victim", victim), "criterion", None)
    if criterion is None:
        return "–"
    (threshold,) = np.unique(criterion.thresholds)
    return f"{threshold:g}"


def clean_scores(victim: Victim, exact: Trace, test: Data) -> dict[str, str]:
    """What a victim says and saves, and how far its decisions are from the exact ones."""
    found = traced(victim, test[0])
    others = [(a.active != b.active) for a, b in zip(found.gates, exact.gates, strict=True)]
    made = [(a.reached | b.reached) for a, b in zip(found.gates, exact.gates, strict=True)]
    flipped, decisions = torch.cat(others, 1), torch.cat(made, 1)
    accuracy = (found.logits.argmax(1) == test[1]).double().mean().item()
    return {
        "accuracy": f"{accuracy:.1%}",
        "savings": f"{1 - found.macs.mean().item() / victim.max_macs:.1%}",
        "decisions flipped": f"{(flipped.sum() / decisions.sum()).item():.2%}",
        "images with one": f"{flipped.any(1).double().mean().item():.1%}",
    }


def attacked_rows(
    forms: dict[str, Victim], attack: str, eps: float, images: Tensor, labels: Tensor
) -> Iterator[dict[str, str]]:
    """Attack success by what an attack was crafted on (rows) and is judged on (columns)."""
    clean = {name: audit(victim, images).macs.sum().item() for name, victim in forms.items()}
    for name, text in [("noise, no victim", "noise"), *((form, attack) for form in forms)]:
        source = forms.get(name, forms["float32"])
        adversarial = build(text, source, eps)(images, labels)
        row = {"crafted on": name}
        for judge, victim in forms.items():
            worst = len(images) * victim.max_macs
            taken = audit(victim, adversarial).macs.sum().item() - clean[judge]
            row[judge] = f"{taken / (worst - clean[judge]):.3f}"
        yield row


def traced(victim: Victim, images: Tensor) -> Trace:
    """The trace of many images, without gradients."""
    with torch.no_grad():
        parts = [victim.trace(some) for some in images.split(BATCH)]
    gates = tuple(
        gate._replace(
            **{
                field: torch.cat([getattr(part.gates[k], field) for part in parts])
                for field in ("margin", "active", "reached")
            }
        )
        for k, gate in enumerate(parts[0].gates)
    )
    stages = [part.stage_logits for part in parts if part.stage_logits is not None]
    return Trace(
        logits=torch.cat([part.logits for part in parts]),
        gates=gates,
        macs=torch.cat([part.macs for part in parts]),
        stage_logits=torch.cat(stages) if stages else None,
    )


if __name__ == "__main__":
    main()
