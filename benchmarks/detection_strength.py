"""Strength on detectors: house attacks beside published and universal ones, noise and queries.

    python benchmarks/detection_strength.py
    python benchmarks/detection_strength.py --table

Test scenes under l-inf ε = 8/255. Every attack that follows gradients takes 50 of them, AutoSlow
its own number, and queries are as many forward passes as 50 gradients, a gradient counting three.
Universal ones learn on scenes of the training split: in ε, in the budget of Phantom Sponges, and as
a patch of 16 x 16 in the corner, with noise of the same budgets beside. What an attack made is
judged at the caps that are deployed, and once more without any. A row that is there is not run
again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from kept_rows import commit, keep, kept, parser_of
from tables import markdown
from torch import Tensor

from effattack.attacks import attack_class, build
from effattack.attacks.universal import UniversalAttack
from effattack.models_zoo.detection.average_precision import average_precision
from effattack.models_zoo.detection.detector import Detector
from effattack.models_zoo.detection.scenes import scenes
from effattack.models_zoo.detection.two_stage import TwoStage
from effattack.victim import Victim, load_victim

VICTIMS = ("scenes_detector", "scenes_two_stage")
EPS, STEPS, SCENES, LEARNT_ON = 8 / 255, 50, 20, 60
HOUSE = f"Slowdown(steps={STEPS})"
PUBLISHED = tuple(
    f"{name}(steps={STEPS})" for name in ("Daedalus", "PhantomSponges", "Overload", "SlowTrack")
)
NO_AREA = tuple(f"{name}(small=0.0, steps={STEPS})" for name in ("PhantomSponges", "SlowTrack"))
"""Of three weights of the area, the best on ten held-out scenes of the first detector."""
SPREAD = "l2:4.04"
"""Budget of Phantom Sponges, 70 on 640 x 640 x 3, at the same mean square on 64 x 64 x 1."""
PATCH = "patch:16@0,0"
UNIVERSAL = (
    "UniversalSlowdown",
    "UniversalPhantomSponges",
    f"UniversalSlowdown(threat='{SPREAD}')",
    f"UniversalPhantomSponges(threat='{SPREAD}')",
    f"UniversalPhantomSponges(small=0.0, threat='{SPREAD}')",
    f"noise(threat='{SPREAD}')",
    f"UniversalSlowdown(threat='{PATCH}')",
    f"noise(threat='{PATCH}')",
)
QUERIES = f"QueryAttack(queries={3 * STEPS})"
ATTACKS = ("clean", "noise", HOUSE, *PUBLISHED, *NO_AREA, *UNIVERSAL, QUERIES, "AutoSlow")
ROWS = Path(__file__).parents[1] / "reports" / "strength" / "detection.jsonl"


def uncapped(victim: Victim) -> Victim:
    """The same detector, all boxes of which are compared, looked at and answered.

    Raises:
        TypeError: for another victim.
    """
    shape = victim.input_shape
    if isinstance(victim, Detector):
        score, iou = victim.score, victim.rules.iou
        return Detector(victim.model, victim.decode, score, iou, None, None, input_shape=shape)
    if isinstance(victim, TwoStage):
        first, second = (
            each._replace(max_nms=None, max_det=None) for each in (victim.proposals, victim.rules)
        )
        return TwoStage(victim.network, first, second, input_shape=shape)
    raise TypeError(f"{victim.name} is no detector whose caps can be lifted")


def attacked(victim: Victim, spelled: str, images: Tensor, truth: Tensor) -> Tensor:
    """What an attack makes of scenes; a universal one learns first, on others."""
    attack = build(spelled, victim, EPS)
    if isinstance(attack, UniversalAttack):
        attack.fit(*(part[:LEARNT_ON] for part in scenes("train")))
    return attack(images, truth)


@torch.no_grad()
def measured(victim: Victim, found: Tensor, images: Tensor, truth: Tensor) -> dict[str, Any]:
    """Means over scenes of what the victim does with them, clean and attacked, capped and not."""
    clean, trace = victim.trace(images), victim.trace(found)
    before, after = victim.spent(clean), victim.spent(trace)
    ceiling = victim.ceiling(images, victim.currency)
    free = uncapped(victim)
    counts = {name: count.mean().item() for name, count in trace.also.items()}
    return {
        **counts,
        "currency": victim.currency,
        "clean_work": before.mean().item(),
        "work": after.mean().item(),
        "each": after.tolist(),
        "success": ((after - before).sum() / (ceiling - before).sum()).item(),
        "uncapped_work": free.spent(free.trace(found)).mean().item(),
        "average_precision": average_precision(trace.logits, truth),
        "agreement": victim.task.agree(clean.logits, trace.logits).double().mean().item(),
    }


def run(rows: Path, count: int, victims: list[str]) -> None:
    """Measure what ``rows`` lack."""
    done = {(row["victim"], row["attack"]) for row in kept(rows)}
    images, truth = (part[:count] for part in scenes("test"))
    made = commit()
    for name in victims:
        victim = load_victim(name)
        for spelled in ATTACKS:
            if (name, spelled) in done:
                continue
            found = measured(victim, attacked(victim, spelled, images, truth), images, truth)
            origin = {"scenes": count, "commit": made}
            keep(rows, {"victim": name, "attack": spelled, **found, **origin})
            print(name, spelled, f"{found['work']:.4g}", flush=True)


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One line per attack on one victim."""
    rows = sorted(rows, key=lambda row: ATTACKS.index(row["attack"]))
    house = next(row["each"] for row in rows if row["attack"] == HOUSE)
    return pd.DataFrame(
        {
            "attack": f"`{row['attack']}`",
            "knowledge": attack_class(row["attack"]).knowledge,
            "work": f"{row['work']:,.0f}",
            "equals clean requests": f"{row['work'] / row['clean_work']:.2f}",
            "attack success": f"{row['success']:.3f}",
            "beyond `Slowdown`": f"{_beyond(row['each'], house)} of {len(house)}",
            "boxes into NMS": f"{row['boxes']:.1f}",
            "boxes out": f"{row['boxes_out']:.1f}",
            "average precision": f"{row['average_precision']:.1%}",
            "agreement": f"{row['agreement']:.0%}",
            "uncapped": f"{row['uncapped_work'] / row['clean_work']:.2f}",
        }
        for row in rows
    )


def _beyond(each: list[float], house: list[float]) -> int:
    return sum(mine > theirs for mine, theirs in zip(each, house, strict=True))


def main() -> None:
    parser = parser_of("attacks on detectors of scenes", ROWS)
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--scenes", type=int, default=SCENES, help="how many are attacked")
    args = parser.parse_args()
    torch.set_num_threads(1)
    victims = args.victims.split(",")
    if not args.table:
        run(args.rows, args.scenes, victims)
    rows = kept(args.rows)
    for name in victims:
        here = [row for row in rows if row["victim"] == name]
        if here:
            print(f"### `{name}`, in {here[0]['currency']}\n\n{markdown(table(here))}\n")


if __name__ == "__main__":
    main()
