"""What AutoSlow's stages were chosen from: other tables of stages, on held-out images.

    python benchmarks/ensemble.py --images 50 --victims digits_cnn_sdn@4,digits_skipnet@16
    python benchmarks/ensemble.py --images 8 --victims digits_vit_ats@4,digits_vit_adavit@4
    python benchmarks/ensemble.py --images 300 --victims exam_exit@18,exam_cascade@18

A victim stands with its ε in 1/255. All take 200 gradients and 30 queries; cells are attack
success, by what the traces say that was executed. No image of the tables of strength is looked at.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import ILFO, AutoSlow
from effattack.attacks.house.auto import FINE_KAPPA, KAPPA, LOSSES, STARTS, TOWARDS, Stage, shared
from effattack.attacks.house.slowdown import house_search
from effattack.attacks.objectives import MarginHinge, ReweightedHinge, Towards
from effattack.attacks.published.ilfo import DesiredStates
from effattack.attacks.searches.projected import ProjectedAdam, constant
from effattack.inputs.source import subset
from effattack.models_zoo.digits import digits, small_digits
from effattack.victim import Gate, Victim, load_victim
from effattack.victim.undisturbed import undisturbed

Stages = tuple[Stage, ...]


@dataclass(frozen=True)
class ReweightedUnits(ReweightedHinge):
    """A weight drawn for every unit, not for every gate."""

    def weights(self, gates: Sequence[Gate]) -> list[Tensor | float]:
        generator = torch.Generator().manual_seed(self.seed)
        return [
            gate.cost
            * torch.empty(gate.margin.shape[1]).exponential_(generator=generator).to(gate.margin)
            for gate in gates
        ]


def stages(
    victim: Victim,
    house: int,
    others: int,
    states: int,
    again: int,
    refined: int,
    reweighted: type[ReweightedHinge] = ReweightedHinge,
    *,
    classes: int = 0,
    towards: Sequence[Towards] = TOWARDS,
) -> Stages:
    """A table of stages by gradients; none where 0."""
    losses, share, spare = shared(others, LOSSES, victim)
    wanted, each_class, more = shared(classes, towards, victim)
    again += spare + (more if wanted else 0)
    starts = () if wanted else (classes // STARTS,) * STARTS
    adam = ProjectedAdam(max(1, states), constant(ILFO.rate))
    every = (
        (house, Stage(MarginHinge(KAPPA), house_search(max(1, house)), "random")),
        *((share, Stage(each, house_search(max(1, share), 0.25), "best")) for each in losses),
        (states, Stage(DesiredStates(1.0, KAPPA), adam, "clean")),
        *(
            (each_class, Stage(each, house_search(max(1, each_class), 0.5), "clean"))
            for each in wanted
        ),
        *(
            (some, Stage(MarginHinge(FINE_KAPPA), house_search(max(1, some)), "random"))
            for some in starts
        ),
        (again, Stage(MarginHinge(FINE_KAPPA), house_search(max(1, again)), "random")),
        (refined, Stage(reweighted(KAPPA, 0), house_search(max(1, refined), 0.5), "best")),
    )
    return tuple(stage for gradients, stage in every if gradients)


SIX = tuple(Towards(rank) for rank in range(1, 7))

VARIANTS: dict[str, Callable[[Victim], Stages]] = {
    "first edition": lambda v: stages(v, 100, 30, 0, 70, 0),
    "and ILFO": lambda v: stages(v, 80, 20, 50, 50, 0),
    "and refinement": lambda v: stages(v, 100, 30, 0, 35, 35),
    "both": lambda v: stages(v, 70, 20, 40, 35, 35),
    "both, weights by unit": lambda v: stages(v, 70, 20, 40, 35, 35, ReweightedUnits),
    "and four classes": lambda v: stages(v, 30, 20, 40, 35, 35, classes=40),
    "and six classes": lambda v: stages(v, 30, 20, 40, 25, 25, classes=60, towards=SIX),
}


class Ensemble(AutoSlow):
    """AutoSlow with another table of stages."""

    variant: str = "both"

    def prepare(self) -> None:
        super().prepare()
        self.stages = VARIANTS[self.variant](self.victim)


def success(victim: Victim, clean: Tensor, attacked: Tensor) -> float:
    """Attack success, of executed MACs as traced."""
    with torch.no_grad(), undisturbed(victim):
        before, after = (victim.trace(images).macs.sum().item() for images in (clean, attacked))
    return (after - before) / (len(clean) * victim.max_macs - before)


def main() -> None:
    parser = argparse.ArgumentParser(description="AutoSlow with other stages, on held-out images")
    parser.add_argument("--victims", default="digits_cnn_sdn@4,digits_skipnet@16")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    rows = []
    for named in args.victims.split(","):
        name, _, levels = named.partition("@")
        victim, eps = load_victim(name), int(levels) / 255
        source = small_digits if name.startswith("exam_") else digits
        images, _ = subset(*source("heldout"), args.images)
        row = {"victim": f"`{victim.name}`", "ε": f"{levels}/255"}
        rivals = {
            **{v: Ensemble(victim, eps, seed=args.seed, variant=v) for v in VARIANTS},
            "`ILFO(steps=200)`": ILFO(victim, eps, steps=200),
        }
        for variant, attack in rivals.items():
            row[variant] = f"{success(victim, images, attack(images)):.4f}"
            print(row, flush=True)
        rows.append(row)
    print(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
