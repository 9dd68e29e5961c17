"""Strength on images with questions: attacks on either part and on both, beside random points.

    python benchmarks/multimodal_strength.py
    python benchmarks/multimodal_strength.py --table

The first test questions. ``BestOfRandom`` draws as many random points of the same budget as an
attack sends inputs through the model, a gradient counting three; the worst of them counts. Success
is (attacked - clean) / (max - clean) in the victim's currency, of the deployed path; in brackets
the agreement with the clean answer. A row that is there is not run again; gradients of a part on
which no decision hangs have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from kept_rows import commit, keep, kept, parser_of
from on_prompts import EFFORT, STEPS, executed, grid
from tables import markdown

from effattack.attacks import attack_class, build
from effattack.domains import PartsBatch
from effattack.errors import GradientError
from effattack.registry import call, import_factory
from effattack.threats import parse_threat
from effattack.victim import Victim, load_victim

VICTIMS = ("questions_cross", "questions_gated", "questions_selected", "questions_written")
IMAGE, QUESTION = "image:linf:8/255", "question:swap:1"
THREATS = (IMAGE, QUESTION, "question:swap:2", f"{IMAGE}+{QUESTION}")
ATTACKS = (
    "noise",
    f"BestOfRandom(draws={EFFORT})",
    f"Slowdown(steps={STEPS})",
    f"QueryAttack(queries={EFFORT})",
)
INPUTS = 32
ROWS = Path(__file__).parents[1] / "reports" / "strength" / "multimodal.jsonl"


def measured(victim: Victim, found: PartsBatch, clean: PartsBatch) -> dict[str, Any]:
    """What inputs of a budget cost beside the clean ones, and whether answers agree."""
    before, after = executed(victim, clean), executed(victim, found)
    room = victim.ceiling(clean, victim.currency) - before
    answer, again = (victim.task.answer(victim(each)) for each in (clean, found))
    return {
        "currency": victim.currency,
        "clean_work": before.mean().item(),
        "work": after.mean().item(),
        "max_work": (before + room).mean().item(),
        "success": ((after - before).sum() / room.sum()).item(),
        "agreement": victim.task.agree(answer, again).double().mean().item(),
    }


def run(rows: Path, count: int, victims: Sequence[str]) -> None:
    """Measure what ``rows`` lack."""
    done = {(row["victim"], row["threat"], row["attack"]) for row in kept(rows)}
    made = commit()
    for name in victims:
        victim = load_victim(name)
        assert victim.data is not None
        inputs, labels = call(import_factory(victim.data), victim.data)
        clean, labels = inputs[:count], labels[:count]
        for threat in THREATS:
            for spelled in ATTACKS:
                if (name, threat, spelled) in done:
                    continue
                try:
                    found = build(spelled, victim, parse_threat(threat))(clean, labels)
                except GradientError as error:
                    print(name, threat, spelled, error, flush=True)
                    continue
                row = measured(victim, found, clean)
                told = {"victim": name, "threat": threat, "attack": spelled, "inputs": count}
                keep(rows, {**told, **row, "commit": made})
                print(name, threat, spelled, f"{row['success']:.3f}", flush=True)


def cheaper(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which part alone gets the better of the attacks further, beside random points of both."""
    best, told = {}, []
    for part, threat in (("the image", IMAGE), ("the question", QUESTION)):
        here = [row for row in rows if row["threat"] == threat]
        random = [row for row in here if attack_class(row["attack"]).kind == "control"]
        found = [row for row in here if row not in random]
        best[part], control = (max(row["success"] for row in some) for some in (found, random))
        told.append(f"`{threat}` {best[part]:.3f} (random {control:.3f})")
    alike = len(set(best.values())) == 1
    return f"{'neither' if alike else max(best, key=best.__getitem__)}: {', '.join(told)}"


def main() -> None:
    parser = parser_of("attacks on images with questions", ROWS)
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--inputs", type=int, default=INPUTS, help="how many are attacked")
    args = parser.parse_args()
    torch.set_num_threads(1)
    victims = args.victims.split(",")
    if not args.table:
        run(args.rows, args.inputs, victims)
    rows: list[Any] = kept(args.rows)
    for name in victims:
        here = [row for row in rows if row["victim"] == name]
        if here:
            table = markdown(grid(here, "agreement"))
            print(f"### `{name}`, in {here[0]['currency']}\n\n{table}\n")
            print(f"Cheaper for the attacker is {cheaper(here)}\n")


if __name__ == "__main__":
    main()
