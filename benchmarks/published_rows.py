"""SlowFormer's and DeSparsify's published rows beside ours, on the nearest victims that come along.

    python benchmarks/published_rows.py

Published: DeiT-S (SlowFormer's l-inf on A-ViT: DeiT-T) on ImageNet. Here: a small ViT on digits.
About a minute of one idle core.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pandas as pd
import torch

import effattack
from effattack.attacks import Attack, DeSparsify, SlowFormer, UniversalDeSparsify
from effattack.models_zoo.digits import digits
from effattack.registry import load_victim
from effattack.victim import Victim

SCORED, FITTED, STEPS, EPOCHS, BATCH = 10, 30, 20, 4, 10
VICTIMS = {"ATS": "digits_vit_ats", "AdaViT": "digits_vit_adavit", "A-ViT": "digits_vit_avit"}

Rows = dict[str, tuple[Callable[[Victim], Attack], dict[str, str]]]
"""What a row is called -> our attack, and what was published of it, by mechanism."""


def desparsify(victim: Victim) -> Attack:
    return DeSparsify(victim, steps=STEPS)


def ensemble(victim: Victim) -> Attack:
    others = [name for name in VICTIMS.values() if name != victim.name]
    return DeSparsify(victim, others=others, steps=STEPS)


def universal(threat: str = "linf:16/255", per_class: bool = False) -> Callable[[Victim], Attack]:
    return lambda victim: UniversalDeSparsify(
        victim, threat=threat, per_class=per_class, epochs=EPOCHS, batch=BATCH
    )


def slowformer(threat: str) -> Callable[[Victim], Attack]:
    return lambda victim: SlowFormer(victim, threat=threat, epochs=EPOCHS, batch=BATCH)


def published(ats: str, adavit: str, avit: str) -> dict[str, str]:
    return dict(zip(VICTIMS, (ats, adavit, avit), strict=True))


DESPARSIFY: Rows = {
    "single image": (desparsify, published("74 (88.2)", "44 (82.5)", "100 (91.8)")),
    "ensemble": (ensemble, published("50 (85.6)", "38 (79.5)", "93 (86.8)")),
    "class-universal": (
        universal(per_class=True),
        published("21 (83.7)", "30 (80.0)", "49 (79.8)"),
    ),
    "universal": (universal(), published("14 (84.4)", "19 (77.6)", "25 (85.6)")),
    "universal patch": (
        universal("patch:9@0,0"),
        published("40 (4.6)", "32 (20.0)", "100 (71.0)"),
    ),
}
"""At ε = 16/255: attack success against the dense model in %, accuracy in brackets."""
SLOWFORMER: Rows = {
    "patch 64 of 224": (slowformer("patch:9@0,0"), published("60 (1.0)", "40 (0.4)", "99 (2.3)")),
    "patch 32 of 224": (slowformer("patch:5@0,0"), published("–", "–", "78 (39.5)")),
    "l-inf 16/255": (slowformer("linf:16/255"), published("33 (31.0)", "–", "73 (6.1)")),
    "l-inf 32/255": (slowformer("linf:32/255"), published("47 (3.6)", "–", "98 (0.5)")),
}
CONTROLS = {"noise 16/255": ("linf", 16 / 255), "random patch": ("patch@0,0", 9)}


def main() -> None:
    torch.set_num_threads(1)
    images, labels = digits("test")
    fit = images[100 : 100 + FITTED], labels[100 : 100 + FITTED]
    found = {}
    for mechanism, name in VICTIMS.items():
        victim = load_victim(name)
        made = {
            row: attack(victim)
            for table in (DESPARSIFY, SLOWFORMER)
            for row, (attack, known) in table.items()
            if known[mechanism] != "–"
        }
        scores = effattack.evaluate(
            victim, images[:SCORED], labels[:SCORED], list(made.values()), timed=0, fit=fit
        ).scores()
        print(f"{mechanism} is done", file=sys.stderr, flush=True)
        wanted = {row: (a.name, a.threat.name, a.eps) for row, a in made.items()}
        wanted |= {row: ("noise", *budget) for row, budget in CONTROLS.items()}
        found[mechanism] = {row: cell(scores, *which) for row, which in wanted.items()}
        found[mechanism]["clean"] = f"({100 * scores.accuracy.iloc[0]:.0f})"
    for title, table in (("DeSparsify", DESPARSIFY), ("SlowFormer", SLOWFORMER)):
        show(title, table, found)
    print("\n| control | " + " | ".join(VICTIMS) + " |\n|---|" + "---|" * len(VICTIMS))
    for row in ("clean", *CONTROLS):
        print(f"| {row} | " + " | ".join(found[each][row] for each in VICTIMS) + " |")


def cell(scores: pd.DataFrame, attack: str, threat: str, eps: float) -> str:
    """ "attack success against the dense model, in % (accuracy, in %)"."""
    (row,) = scores[
        (scores.attack == attack) & (scores.threat == threat) & ((scores.eps - eps).abs() < 1e-9)
    ].itertuples()
    return f"{100 * row.attack_success_dense:.0f} ({100 * row.accuracy:.0f})"


def show(title: str, table: Rows, found: dict[str, dict[str, str]]) -> None:
    columns = " | ".join(f"{each}, published | {each}, here" for each in VICTIMS)
    print(f"\n| {title} | {columns} |\n|---|" + "---|" * 2 * len(VICTIMS))
    for row, (_, known) in table.items():
        cells = (f"{known[each]} | {found[each].get(row, '–')}" for each in VICTIMS)
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
