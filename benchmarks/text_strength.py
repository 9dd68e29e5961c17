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
from functools import partial
from pathlib import Path

import torch
from on_prompts import EFFORT, STEPS, Asked, Row, grid
from tables import markdown
from torch import Generator

from effattack.cells.spec import code_version
from effattack.certify.enumeration import enumeration
from effattack.threats import parse_threat
from effattack.victim import load_victim

VICTIMS = ("text_exit", "ner_exit")
THREATS = ("swap:1", "swap:2", "suffix:3")
ATTACKS = {
    f"best of {EFFORT} random": f"BestOfRandom(draws={EFFORT})",
    "benign": "benign",
    "repetition": "repetition",
    "Slowdown": f"Slowdown(steps={STEPS})",
    "Slowdown, kept": f"Slowdown(keep_prediction=True, steps={STEPS})",
    "SAME": f"SAME(steps={STEPS})",
    "WAFFLE": f"WAFFLE(steps={STEPS})",
    "QueryAttack": f"QueryAttack(queries={EFFORT})",
    "AutoSlow": "AutoSlow",
}
LONGER = {"Slowdown, 1200 prompts": "Slowdown(steps=400)"}
"""At ``swap:1``, where some 3,300 prompts are all there are."""
EXACT, RANDOM = "exact worst case", "random, mean"
LISTED = ("swap:1", "chars:1")
"""Budgets of some thousand prompts per sentence."""
ALONE = (*LONGER, EXACT)
"""What all prompts of the budget can be compared with."""
ROWS = (RANDOM, *ATTACKS, *LONGER, EXACT)


def rows(asked: Asked, names: list[str]) -> list[Row]:
    """The rows of one victim under one threat, those of these names."""
    makes = {RANDOM: partial(mean, asked)}
    makes |= {name: partial(asked.attacked, each) for name, each in (ATTACKS | LONGER).items()}
    makes[EXACT] = partial(exact, asked)
    return [asked.row(name, make) for name, make in makes.items() if name in names]


def mean(asked: Asked) -> Row:
    """The mean work of ``EFFORT`` random prompts of each."""
    victim, generator = asked.victim, Generator().manual_seed(0)
    total = torch.zeros_like(asked.before)
    for _ in range(EFFORT):
        with torch.no_grad():
            drawn = victim.trace(asked.threat.start(asked.clean, generator))
        total += victim.spent(drawn)
    return asked.of_work(total / EFFORT)


def exact(asked: Asked) -> Row:
    """The worst of all prompts of the budget."""
    return asked.of_work(enumeration(asked.victim, asked.clean, asked.threat, most=10**7).most)


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
    for name in args.victims.split(","):
        victim, found = load_victim(name), []
        for text in args.threats.split(","):
            named = [row for row in args.rows.split(";") if text in LISTED or row not in ALONE]
            asked = Asked(victim, parse_threat(text).on(victim.domain), args.prompts, store)
            found += rows(asked, named)
        print(f"### `{name}`\n\n{markdown(grid(found, 'agreement'))}\n", flush=True)


if __name__ == "__main__":
    main()
