"""Strength on text: the house attack beside published losses, queries and random words.

    python benchmarks/text_strength.py --prompts 20 --out text_strength

One table per victim, of attack success in MACs of the deployed path under ``swap:1``, ``swap:2``
and ``suffix:3``, or ``--threats``, and in brackets the agreement with the clean answer. Effort is
in prompts through the model, a backward counting two more: every attack gets the same, and *best of
N* are as many random prompts of the budget, of which the worst counts; ``AutoSlow``, the ensemble,
takes 630. At ``swap:1`` and ``chars:1`` all prompts of the budget are run, and *exact* is the worst
case. What lies beyond the row *random, mean* is gain beyond length. Every row that is finished lies
in ``--out``, and is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from tables import markdown
from torch import Generator, Tensor

from effattack.attacks import build
from effattack.cells.spec import code_version
from effattack.certify.enumeration import enumeration
from effattack.domains.tokens import padded
from effattack.registry import call, import_factory
from effattack.threats import Threat, parse_threat
from effattack.victim import Victim, audit, load_victim

VICTIMS = ("text_exit", "ner_exit")
THREATS = ("swap:1", "swap:2", "suffix:3")
STEPS = 50
"""Gradients' worth of effort: 150 prompts through the model."""
EFFORT = 3 * STEPS
LISTED = ("swap:1", "chars:1")
"""Budgets of some thousand prompts per sentence."""
ATTACKS = {
    "Slowdown": f"Slowdown(steps={STEPS})",
    "Slowdown, kept": f"Slowdown(keep_prediction=True, steps={STEPS})",
    "SAME": f"SAME(steps={STEPS})",
    "WAFFLE": f"WAFFLE(steps={STEPS})",
    "QueryAttack": f"QueryAttack(queries={EFFORT})",
    "AutoSlow": "AutoSlow",
}
LONGER = {"Slowdown, 1200 prompts": "Slowdown(steps=400)"}
"""At budgets that are listed: at ``swap:1`` some 3,300 prompts are all there are."""
BEST, EXACT, RANDOM = f"best of {EFFORT} random", "exact worst case", "random, mean"
ROWS = (RANDOM, BEST, *ATTACKS, *LONGER, EXACT)


def data(victim: Victim, count: int) -> tuple[Tensor, Tensor]:
    """The first test prompts and their labels."""
    assert victim.data is not None
    prompts, labels = call(import_factory(victim.data), victim.data)
    return prompts[:count], labels[:count]


def work(victim: Victim, prompts: Tensor) -> Tensor:
    """(B,) float64."""
    with torch.no_grad():
        return victim.trace(prompts).macs


def random_prompts(victim: Victim, clean: Tensor, threat: Threat) -> tuple[Tensor, Tensor, Tensor]:
    """The worst of ``EFFORT`` random prompts of each, its work, and the mean work of all."""
    generator = Generator().manual_seed(0)
    wide = threat.largest(clean).shape[1]
    best, most, total = padded(clean, wide), work(victim, clean), torch.zeros(len(clean)).double()
    for _ in range(EFFORT):
        found = padded(threat.start(clean, generator), wide)
        done = work(victim, found)
        total += done
        best = torch.where((done > most)[:, None], found, best)
        most = torch.maximum(most, done)
    return best, most, total / EFFORT


def rows(victim: Victim, text: str, count: int, asked: list[str], store: Path) -> list[dict]:
    """The rows of one victim under one threat that are asked for, each kept in ``store`` once it is
    there."""
    clean, labels = data(victim, count)
    threat = parse_threat(text).on(victim.domain)
    before = audit(victim, clean).macs
    room = victim.ceiling(threat.largest(clean)) - before
    answer = victim.task.answer(victim(clean))
    names = [name for name in asked if text in LISTED or name not in (*LONGER, EXACT)]
    found = []
    for name in names:
        path = store / f"{victim.name}-{text.replace(':', '')}-{name}.json".replace(" ", "_")
        if not path.exists():
            kept = float("nan")
            if name in (RANDOM, BEST):
                best, _, mean = random_prompts(victim, clean, threat)
                spent = mean if name == RANDOM else audit(victim, best).macs
            elif name == EXACT:
                spent, best = enumeration(victim, clean, threat, most=10**7).most, clean
            else:
                best = build((ATTACKS | LONGER)[name], victim, threat, seed=0)(clean, labels)
                spent = audit(victim, best).macs
            if name not in (RANDOM, EXACT):
                again = victim.task.answer(victim(best))
                kept = victim.task.agree(answer, again, victim.domain.kept(best, clean))
                kept = kept.double().mean().item()
            success = ((spent - before).sum() / room.sum()).item()
            path.write_text(json.dumps({"attack": name, "success": success, "agreement": kept}))
            print(f"{victim.name} {text} {name}: {success:.3f}", flush=True)
        found.append(json.loads(path.read_text()) | {"threat": text})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="attack success on text, by victim")
    parser.add_argument("--victims", default=",".join(VICTIMS))
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--threats", default=",".join(THREATS))
    parser.add_argument("--rows", default=";".join(ROWS), help="of the table, by semicolons")
    parser.add_argument("--out", type=Path, default=Path("text_strength"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / f"{code_version()}-{args.prompts}"
    store.mkdir(parents=True, exist_ok=True)
    threats, asked = args.threats.split(","), args.rows.split(";")
    for name in args.victims.split(","):
        victim = load_victim(name)
        found = [row for text in threats for row in rows(victim, text, args.prompts, asked, store)]
        frame = pd.DataFrame(found)
        frame["cell"] = [
            f"{success:.3f}" + (f" ({kept:.0%})" if kept == kept else "")
            for success, kept in zip(frame.success, frame.agreement, strict=True)
        ]
        grid = frame.pivot(index="attack", columns="threat", values="cell")[threats]
        grid = grid.reindex(asked).fillna("")
        print(f"### `{name}`\n\n{markdown(grid.reset_index())}\n", flush=True)


if __name__ == "__main__":
    main()
