"""Premises that make a reasoner think longer, beside random words and gradients, at equal effort.

    python benchmarks/premises.py --prompts 40 --threat prefix:10

One row per attack: how long chains are, how many the budget ended, passes of the deployed path, and
the share of prompts whose conclusion is the clean one. Effort is in prompts through the model, a
gradient counting three; every attack but ``noise`` gets nearly the same. With ``--split heldout``
other prompts are attacked.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.effort import metered
from effattack.models_zoo.generation.reasoner import Reasoner
from effattack.models_zoo.generation.thoughts import thoughts
from effattack.threats import Threat, parse_threat
from effattack.victim import audit, load_victim

ATTACKS = (
    "clean",
    "noise",
    "BestOfRandom(draws=160)",
    "Slowdown(steps=53)",
    "OverThink(queries=160)",
    "OverthinkHGA(generations=7)",
    "Slowdown(steps=53, keep_prediction=True)",
    "OverThink(queries=160, keep_prediction=True)",
    "OverthinkHGA(generations=7, keep_prediction=True)",
)


def rows(victim: Reasoner, prompts: Tensor, answers: Tensor, threat: Threat) -> Iterator[dict]:
    """What every attack made of the prompts."""
    clean = victim.task.answer(victim(prompts))
    before = audit(victim, prompts).counts["passes"]
    room = victim.ceiling(threat.on(victim.domain).largest(prompts), "passes") - before
    for name in ATTACKS:
        watched, effort = metered(victim)
        found = build(name, watched, threat)(prompts, answers)
        counts, trace = audit(victim, found).counts, victim.trace(found)
        again = victim.task.answer(trace.logits)
        yield {
            "attack": f"`{name}`",
            "prompts through the model": f"{effort.prompts / len(prompts):.0f}",
            f"chain of {victim.budget}": f"{counts['chain_tokens'].mean():.1f}",
            "ended by the budget": f"{trace.aux['chain_capped'].double().mean():.0%}",
            f"passes of {victim.cap}": f"{counts['passes'].mean():.1f}",
            "attack success": f"{(counts['passes'] - before).sum() / room.sum():.3f}",
            "same conclusion": f"{victim.task.agree(clean, again).double().mean():.0%}",
            "right": f"{victim.task.right(again, answers).double().mean():.0%}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="premises that are thought about")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--threat", default="prefix:10")
    parser.add_argument("--split", default="test", choices=("heldout", "test"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    victim = load_victim("sums_reasoner")
    assert isinstance(victim, Reasoner)
    prompts, answers = (part[: args.prompts] for part in thoughts(args.split))
    found = []
    for row in rows(victim, prompts, answers, parse_threat(args.threat)):
        found.append(row)
        print(" ".join(row.values()), flush=True)
    print(markdown(pd.DataFrame(found)))


if __name__ == "__main__":
    main()
