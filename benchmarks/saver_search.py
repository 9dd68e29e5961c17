"""Which saver saves most, on clean images and under attack.

    python benchmarks/saver_search.py

Candidates to save the large CNN on digits: the shipped tiny one, two narrow ones, the early-exit
network without its exits, and tiny and narrow ones trained against attacks on their answers. Both
searches look at held-out images (the robust one attacks the first 100 of them); their choices are
then measured on 100 test images. Five minutes on one core, half of it training.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from tables import markdown
from torch import Tensor, nn
from torch.nn import functional as F

from effattack.attacks import build
from effattack.models_zoo import load, search_robust_saver, search_saver
from effattack.models_zoo.digits import digits
from effattack.models_zoo.networks import saver_cnn, tiny_cnn
from effattack.models_zoo.recipes.adversarial import ascended
from effattack.models_zoo.recipes.common import cross_entropy, fit
from effattack.threats import parse_threat
from effattack.victim import Victim
from effattack.victim.audit import audit


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threat", default="linf:4/255")
    parser.add_argument("--attack", default="AutoSlow")
    parser.add_argument("--images", type=int, default=100, help="attacked, of each split")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--without", nargs="*", default=[], help="candidates to leave out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = _candidates(options.epochs, options.without)
    heldout = digits("heldout")
    plain, ranked = search_saver(models, "large", *heldout, name="cheapest on clean images")
    robust, attacked = search_robust_saver(
        models,
        "large",
        *heldout,
        options.threat,
        attack=options.attack,
        attacked=options.images,
        name="cheapest under attack",
    )
    print("\nThe paper's search, on held-out images:\n\n" + _table(ranked))
    print(f"\nUnder {options.attack}, {options.threat}, at equal accuracy:\n\n" + _table(attacked))
    rows = [_tested(victim, options) for victim in (plain, robust) if victim is not None]
    print(f"\nOn {options.images} test images:\n\n" + markdown(pd.DataFrame(rows)))


def _candidates(epochs: int, without: list[str]) -> dict[str, nn.Module]:
    """Trained on the digits where they are not shipped; seconds to a minute each."""
    cascade = load("digits_three_stage_cascade")
    tiny, middle, large = cascade.models
    models: dict[str, nn.Module] = {"large": large, "middle": middle, "tiny": tiny}
    make: dict[str, Callable[[], nn.Module]] = {
        "narrow 2": lambda: saver_cnn(2),
        "narrow 4": lambda: saver_cnn(4),
        "tiny, hardened": tiny_cnn,
        "narrow 4, hardened": lambda: saver_cnn(4),
    }
    for name, factory in make.items():
        if name in without:
            continue
        torch.manual_seed(0)
        model = factory()
        fit(model, cross_entropy(model), epochs=epochs, rate=1e-2)
        if name.endswith("hardened"):
            fit(model, _hardening(model), epochs=epochs, rate=5e-3)
        models[name] = model
    return models


def _hardening(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross-entropy on attacked images, and half of that on clean ones."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        def value(moved: Tensor) -> Tensor:
            return F.cross_entropy(model(moved), labels, reduction="none")

        found = ascended(model, value, images)
        return F.cross_entropy(model(found), labels) + 0.5 * F.cross_entropy(model(images), labels)

    return loss


def _tested(victim: Victim, options: argparse.Namespace) -> dict[str, str]:
    images, labels = (part[: options.images] for part in digits("test"))
    found = build(options.attack, victim, parse_threat(options.threat))(images, labels)
    clean, attacked = audit(victim, images), audit(victim, found)
    spent, taken = clean.macs.sum().item(), attacked.macs.sum().item()
    ceiling = victim.max_macs * len(images)
    right = (clean.logits.argmax(1) == labels).double().mean().item()
    return {
        "search": victim.name,
        "accuracy": f"{right:.1%}",
        "MACs, clean (M)": f"{spent / len(images) / 1e6:.2f}",
        "attacked (M)": f"{taken / len(images) / 1e6:.2f}",
        "savings retained": f"{(ceiling - taken) / (ceiling - spent):.0%}",
    }


def _table(ranked: pd.DataFrame) -> str:
    found: dict[str, Any] = {
        "saver": ranked.saver.replace("", "none"),
        "threshold": ranked.threshold.map("{:.3f}".format),
        "answers": ranked.exit_rate.map("{:.1%}".format),
        "accuracy": ranked.accuracy.map("{:.2%}".format),
        "MACs, clean (M)": (ranked.macs / 1e6).map("{:.2f}".format),
    }
    if "attacked_macs" in ranked:
        found["attacked (M)"] = (ranked.attacked_macs / 1e6).map("{:.2f}".format)
    return markdown(pd.DataFrame(found))


if __name__ == "__main__":
    main()
