"""Strength on generators: the house attack beside published losses, plain texts and random words.

    python benchmarks/generation_strength.py --victims sums_lm --prompts 40

One table per victim, of attack success in its currency, sequential passes of the deployed path,
under ``swap:1``, ``swap:2`` and ``suffix:3``; in brackets the share of texts that the cap ended.
Effort is in tokens through the model, read and written, a gradient counting three: *best of random,
equal* goes through as many as ``Slowdown`` did, *best of 150 random* through as many prompts. All
prompts of the budgets of ``--exact`` are run, and *exact* is the worst case. What lies beyond
*benign*, which is as long, is gain beyond length. Every row that is finished lies in ``--out``, and
is not run again.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from on_prompts import EFFORT, STEPS, Asked, Row, grid
from tables import markdown
from text_strength import EXACT, THREATS, exact

from effattack.attacks import build
from effattack.attacks.by_name import BUILT_IN, USUAL_CONTROLS, attack_class
from effattack.cells.spec import code_version
from effattack.errors import NotApplicable, UsageError
from effattack.threats import parse_threat
from effattack.victim import load_victim

HOUSE, EQUAL = "Slowdown", "best of random, equal"
UNBOUNDED = 10**6
"""Draws that a budget of tokens ends long before."""


def applies(name: str, asked: Asked) -> bool:
    """Whether an attack can be made for a victim under a threat."""
    try:
        build(name, asked.victim, asked.threat)
    except (NotApplicable, UsageError):  # as where no premise is so short
        return False
    return True


def published(asked: Asked) -> dict[str, str]:
    """Attacks of papers that apply, each at the effort of the house attack where it has steps."""
    named = [name for name, place in BUILT_IN.items() if place.startswith("published.")]
    here = [name for name in named if applies(name, asked)]
    return {
        name: f"{name}(steps={STEPS})" if hasattr(attack_class(name), "steps") else name
        for name in here
    }


def rows(asked: Asked) -> list[Row]:
    """The rows of one victim under one threat."""
    plain = [name for name in USUAL_CONTROLS["tokens"] if applies(name, asked)]
    attacks = {
        **{name: name for name in ("noise", *plain)},
        f"best of {EFFORT} random": f"BestOfRandom(draws={EFFORT})",
        HOUSE: f"Slowdown(steps={STEPS})",
        **published(asked),
        "AutoSlow": "AutoSlow",
    }
    found = []
    for name, spelled in attacks.items():
        found.append(asked.row(name, partial(asked.attacked, spelled)))
        if name == HOUSE:
            equal = f"BestOfRandom(draws={UNBOUNDED}, tokens={found[-1]['tokens']})"
            found.append(asked.row(EQUAL, partial(asked.attacked, equal)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="attack success on generators, by victim")
    parser.add_argument("--victims", default="sums_lm")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--exact", default="swap:1", help="budgets of which all is run")
    parser.add_argument("--out", type=Path, default=Path("generation_strength"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    store = args.out / f"{code_version()}-{args.prompts}"
    store.mkdir(parents=True, exist_ok=True)
    for name in args.victims.split(","):
        victim = load_victim(name)
        threats = [parse_threat(text).on(victim.domain) for text in THREATS]
        under = [Asked(victim, threat, args.prompts, store) for threat in threats]
        found = [row for asked in under for row in rows(asked)]
        listed = [asked for asked in under if str(asked.threat) in args.exact.split(",")]
        found += [asked.row(EXACT, partial(exact, asked)) for asked in listed]
        print(f"### `{name}`\n\n{markdown(grid(found, 'capped'))}\n", flush=True)


if __name__ == "__main__":
    main()
