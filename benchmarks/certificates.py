"""Certificates by smoothing beside the best attack on the same system, one line per σ and threat.

    python benchmarks/certificates.py --victims digits_cnn_early_exit --sigmas .05,.1,.2 \
        --threats l2:.1,l2:.25,l2:.5 --images 40 --samples 10000 --attacked 20 --out certificates

Accuracy and mean work are means over 20 fresh draws on all clean images; *certified* is the savings
that no attack takes, with probability 1 - α over all images together; *attacked* is what the attack
left, a mean over 100 fresh draws that it has not seen, at the first ``--attacked`` of the images.
Both are shares of the savings of the victim without noise. ``--data`` names the images: choose σ on
``effattack.models_zoo.digits:heldout``, and report on the victim's own test images. A finished σ is
a file in ``--out``: the same command resumes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.certify.smoothing import drawing, smoothing
from effattack.inputs.source import load_data, subset
from effattack.threats import parse_threat
from effattack.victim import load_victim
from effattack.victim.smoothed import Smoothed
from effattack.victim.undisturbed import undisturbed

FRESH = 100
"""Draws that judge an attack; no search uses these seeds."""
FIRST_SEED = 1_000_000


def fresh(
    victim: Smoothed, inputs: Tensor, labels: Tensor, draws: int = FRESH
) -> tuple[Tensor, float]:
    """(B,) mean work of fresh draws at inputs, and the share of right answers over all of them."""
    works, right = [], []
    with undisturbed(victim), torch.no_grad():
        for k in range(draws):
            trace = victim.seeded(FIRST_SEED + k).trace(inputs)
            works.append(victim.spent(trace))
            right.append(victim.task.right(victim.task.answer(trace.logits), labels).double())
    return torch.stack(works).mean(0), torch.stack(right).mean().item()


def rows(victim: Smoothed, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One per threat."""
    whole, answers = load_data(options.data, victim.victim)
    whole = victim.domain.snap(victim.domain.place(whole, victim.device))
    noisy, accuracy = fresh(victim, whole, answers, FRESH // 5)
    images, labels = subset(whole, answers, options.images)
    drawn = drawing(victim, images, alpha=options.alpha, samples=options.samples)
    few, its = images[: options.attacked], labels[: options.attacked]
    for text in options.threats.split(","):
        found = smoothing(victim, images, parse_threat(text), drawn=drawn)
        assert found.p99 is not None
        attacked, right = float("nan"), float("nan")
        if options.attacked:
            adversarial = build(options.attack, victim, parse_threat(text))(few, its)
            works, right = fresh(victim, adversarial, its)
            clean, most = found.clean[: len(few)].sum(), found.ceiling[: len(few)].sum()
            attacked = ((most - works.sum()) / (most - clean)).item()
        yield {
            "victim": victim.victim.name,
            "sigma": victim.sigma,
            "accuracy": accuracy,
            "work / max": (noisy.mean() / found.ceiling.mean()).item(),
            "threat": text,
            "certified": found.certified_retained,
            "attacked": attacked,
            "accuracy attacked": right,
            "factor": found.certified_factor,
            "p99 / max": (found.p99.sum() / found.ceiling.sum()).item(),
            "seconds": drawn.seconds,
        }


def table(found: pd.DataFrame) -> str:
    shares = ("accuracy", "work / max", "certified", "attacked", "accuracy attacked", "p99 / max")
    shown = found.assign(
        victim=[f"`{name}`" for name in found.victim],
        factor=[f"×{value:.2f}" for value in found.factor],
        seconds=[f"{value:.0f}" for value in found.seconds],
        **{key: ["–" if v != v else f"{v:.3f}" for v in found[key]] for key in shares},
    )
    return markdown(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--victims", default="digits_cnn_early_exit")
    parser.add_argument("--sigmas", default=".05,.1,.2")
    parser.add_argument("--threats", default="l2:.1,l2:.25,l2:.5,linf:1/255")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--attack", default="Slowdown")
    parser.add_argument("--attacked", type=int, default=20)
    parser.add_argument("--data")
    parser.add_argument("--out", type=Path, default=Path("certificates"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    for name in options.victims.split(","):
        for sigma in map(float, options.sigmas.split(",")):
            settings = (options.threats, options.images, options.samples, options.attacked)
            key = f"{name} {sigma} {options.data} {settings} {options.attack} {options.alpha}"
            path = options.out / f"{''.join(c if c.isalnum() else '_' for c in key)}.json"
            if not path.exists():
                victim = Smoothed(load_victim(name), sigma)
                path.write_text(json.dumps([*rows(victim, options)]), encoding="utf-8")
            found += json.loads(path.read_text(encoding="utf-8"))
    print(table(pd.DataFrame(found)))


if __name__ == "__main__":
    main()
