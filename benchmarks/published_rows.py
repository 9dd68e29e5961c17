"""SlowFormer's and DeSparsify's published rows beside ours, on the nearest victims there are.

    python benchmarks/published_rows.py

Published: DeiT-S (SlowFormer's l-inf on A-ViT: DeiT-T) on ImageNet. Here: a small ViT on digits,
for every mechanism; and ATS in a ViT-Tiny on ImageNet-compatible images, where those lie in the
folders that ``imagenet_attacked.py`` names. Universal attacks learn from one half of the images,
and all are scored on the other. Digits take about six minutes of an idle core, the ViT-Tiny some
twenty.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import imagenet_attacked
import pandas as pd
import torch
from tables import markdown
from torch import Tensor

import effattack
from effattack.attacks import (
    Attack,
    DeSparsify,
    SlowFormer,
    UniversalDeSparsify,
    UniversalSlowdown,
)
from effattack.models_zoo.digits import digits
from effattack.victim import Victim, load_victim

STEPS, EPOCHS, BATCH = 20, 8, 10
DIGITS = {"ATS": "digits_vit_ats", "AdaViT": "digits_vit_adavit", "A-ViT": "digits_vit_avit"}
VIT_TINY = "ViT-Tiny"


class Here(NamedTuple):
    """The nearest victim, and two halves of its images and labels."""

    mechanism: str
    data: str
    victim: Victim
    scored: tuple[Tensor, Tensor]
    fit: tuple[Tensor, Tensor]

    def patch(self, side: int) -> str:
        """A square in the corner with the share of the image that ``side`` has of 224 pixels."""
        return f"patch:{round(side / 224 * self.victim.input_shape[-1])}@0,0"


def victims_here() -> Iterator[Here]:
    """Those on digits; ATS on ImageNet-compatible images where there are some."""
    images, labels = digits("test")
    halves = (images[:100], labels[:100]), (images[100:200], labels[100:200])
    for mechanism, name in DIGITS.items():
        yield Here(mechanism, "digits", load_victim(name), *halves)
    if "EFFATTACK_IMAGENET_DATA" not in os.environ:
        print(f"no {VIT_TINY}: set EFFATTACK_IMAGENET_DATA and _WEIGHTS", file=sys.stderr)
        return
    images, labels = imagenet_attacked.crops()
    halves = (images[:50], labels[:50]), (images[50:100], labels[50:100])
    yield Here("ATS", VIT_TINY, imagenet_attacked.vit_tiny_ats(), *halves)


Make = Callable[[Here], Attack]
Rows = dict[str, tuple[Make, dict[str, str]]]
"""What a row is called -> our attack, and what was published of it, by mechanism."""


def desparsify(here: Here) -> Attack:
    return DeSparsify(here.victim, steps=STEPS)


def ensemble(here: Here) -> Attack:
    others = [name for name in DIGITS.values() if name != here.victim.name]
    return DeSparsify(here.victim, others=others, steps=STEPS)


def universal(threat: str = "linf:16/255", per_class: bool = False) -> Make:
    return lambda here: UniversalDeSparsify(
        here.victim, threat=threat, per_class=per_class, epochs=EPOCHS, batch=BATCH
    )


def universal_patch(here: Here) -> Attack:
    return universal(here.patch(64))(here)


def slowformer(threat: str) -> Make:
    return lambda here: SlowFormer(here.victim, threat=threat, epochs=EPOCHS, batch=BATCH)


def slowformer_patch(side: int) -> Make:
    return lambda here: slowformer(here.patch(side))(here)


def published(ats: str, adavit: str, avit: str) -> dict[str, str]:
    return dict(zip(DIGITS, (ats, adavit, avit), strict=True))


DESPARSIFY: Rows = {
    "single image": (desparsify, published("74 (88.2)", "44 (82.5)", "100 (91.8)")),
    "ensemble": (ensemble, published("50 (85.6)", "38 (79.5)", "93 (86.8)")),
    "class-universal": (
        universal(per_class=True),
        published("21 (83.7)", "30 (80.0)", "49 (79.8)"),
    ),
    "universal": (universal(), published("14 (84.4)", "19 (77.6)", "25 (85.6)")),
    "universal patch": (
        universal_patch,
        published("40 (4.6)", "32 (20.0)", "100 (71.0)"),
    ),
}
"""At ε = 16/255: attack success against the dense model in %, accuracy in brackets."""
SLOWFORMER: Rows = {
    "patch 64 of 224": (slowformer_patch(64), published("60 (1.0)", "40 (0.4)", "99 (2.3)")),
    "patch 32 of 224": (slowformer_patch(32), published("–", "–", "78 (39.5)")),
    "l-inf 16/255": (slowformer("linf:16/255"), published("33 (31.0)", "–", "73 (6.1)")),
    "l-inf 32/255": (slowformer("linf:32/255"), published("47 (3.6)", "–", "98 (0.5)")),
}
OURS = "UniversalSlowdown, patch 64 of 224"
DIGITS_ALONE = {"ensemble", "class-universal"}
"""No second mechanism is there on ImageNet, and hardly two images of a class."""


def main() -> None:
    torch.set_num_threads(1)
    found: dict[tuple[str, str], dict[str, str]] = {}
    for here in victims_here():
        found[here.mechanism, here.data] = row_cells(here)
        print(f"{here.mechanism} on {here.data} is done", file=sys.stderr, flush=True)
    for title, rows in (("DeSparsify", DESPARSIFY), ("SlowFormer", SLOWFORMER)):
        print(markdown(beside(title, rows, found)), "\n")
    rest = (OURS, "clean", "noise 16/255", "random patch")
    cells = {", ".join(which): [own[row] for row in rest] for which, own in found.items()}
    print(markdown(pd.DataFrame({"beside them": rest, **cells})))


def row_cells(here: Here) -> dict[str, str]:
    """What stands in the rows that this victim has."""
    made = {
        row: attack(here)
        for table in (DESPARSIFY, SLOWFORMER)
        for row, (attack, known) in table.items()
        if known[here.mechanism] != "–" and (here.data == "digits" or row not in DIGITS_ALONE)
    }
    made[OURS] = UniversalSlowdown(here.victim, threat=here.patch(64))
    patch = made[OURS].threat
    scores = effattack.evaluate(
        here.victim, *here.scored, list(made.values()), timed=0, fit=here.fit
    ).scores()
    wanted = {row: (a.name, a.threat.name, a.eps) for row, a in made.items()}
    wanted["noise 16/255"] = ("noise", "linf", 16 / 255)
    wanted["random patch"] = ("noise", patch.name, patch.eps)
    cells = {row: cell(scores, *which) for row, which in wanted.items()}
    return {"clean": f"({100 * scores.accuracy.iloc[0]:.0f})", **cells}


def cell(scores: pd.DataFrame, attack: str, threat: str, eps: float) -> str:
    """ "attack success against the dense model, in % (accuracy, in %)"."""
    (row,) = scores[
        (scores.attack == attack) & (scores.threat == threat) & ((scores.eps - eps).abs() < 1e-9)
    ].itertuples()
    return f"{100 * row.attack_success_dense:.0f} ({100 * row.accuracy:.0f})"


def beside(title: str, rows: Rows, found: dict[tuple[str, str], dict[str, str]]) -> pd.DataFrame:
    """What was published of each mechanism, and next to it what was found."""
    lines = []
    for row, (_, known) in rows.items():
        line = {title: row}
        for mechanism in DIGITS:
            line[f"{mechanism}, published"] = known[mechanism]
            for (which, data), cells in found.items():
                if which == mechanism:
                    line[f"{mechanism}, {data}"] = cells.get(row, "–")
        lines.append(line)
    return pd.DataFrame(lines)


if __name__ == "__main__":
    main()
