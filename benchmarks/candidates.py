"""Candidates per second of CPU time on SmolLM2: one by one, and as the search judges them.

    EFFATTACK_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf python benchmarks/candidates.py

One by one is the deployed path; the search runs the candidates of a gradient together, those of all
prompts that are attacked at once, reads what they share once and ranks them by work and by the
house objective. Both run the same candidates, in turn, on one thread; the passes that they find are
compared.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import process_time

import pandas as pd
import torch
from smollm2 import QUESTIONS, asked, loaded
from tables import markdown
from torch import Generator, Tensor

from effattack.attacks.objectives import BatchGoal, MarginHinge
from effattack.attacks.searches.best import ranked
from effattack.attacks.searches.words import WIDTH
from effattack.domains.tokens import lengths
from effattack.models_zoo.generation.generator import Generator as Writer
from effattack.threats import parse_threat

THREATS = ("swap:1", "suffix:1")


def one_by_one(victim: Writer, found: Tensor) -> Tensor:
    """(n,): passes of candidates (n, L)."""
    with torch.no_grad():
        return torch.cat([lengths(victim(single)) for single in victim.domain.singles(found)])


def together(victim: Writer, found: Tensor, goal: BatchGoal) -> Tensor:
    """The same, as the search finds them."""
    goals = goal.rows(torch.arange(len(goal.labels)).repeat(len(found) // len(goal.labels)))
    with torch.no_grad():
        trace = victim.trace(found)
        return ranked(trace, goals, MarginHinge()(trace, goals)).work


def rates(victim: Writer, name: str, prompts: int, rounds: int) -> dict[str, object]:
    """One line of the table: medians over rounds of fresh candidates."""
    clean, generator = asked(victim, QUESTIONS[:prompts]), Generator().manual_seed(0)
    threat = parse_threat(name).on(victim.domain)
    goal, many = BatchGoal.of(victim, clean, None), WIDTH * prompts
    alone, joined, passes, equal = [], [], 0.0, 0
    for _ in range(rounds):
        found = threat.start(clean.repeat(WIDTH, 1), generator)
        before = process_time()
        expected = one_by_one(victim, found)
        between = process_time()
        seen = together(victim, found, goal)
        alone.append(many / (between - before))
        joined.append(many / (process_time() - between))
        passes += expected.double().mean().item() / rounds
        equal += int((expected == seen).sum())
    ratios = [fast / slow for fast, slow in zip(joined, alone, strict=True)]
    return {
        "budget": f"`{name}`",
        "prompts": prompts,
        "candidates at once": many,
        "passes each": f"{passes:.1f}",
        "one by one, per second": f"{median(alone):.2f}",
        "as searched, per second": f"{median(joined):.2f}",
        "ratio (least, most)": f"×{median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})",
        "equal passes": f"{equal} of {many * rounds}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="candidates per second on SmolLM2")
    parser.add_argument("--cap", type=int, default=160)
    parser.add_argument("--prompts", type=int, default=4, help="attacked at once (4)")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    victim = loaded(args.cap)
    found = [rates(victim, name, args.prompts, args.rounds) for name in THREATS]
    print(markdown(pd.DataFrame(found)))


if __name__ == "__main__":
    main()
