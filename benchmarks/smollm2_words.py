"""Words that carry over: behind other questions, they make SmolLM2 write the longest texts.

They are looked for once, before any question of the benchmark is attacked, by halving: all words
are run behind two questions, a quarter of them behind two more, and of those again a quarter behind
the last two. What it takes is told with each word, as it is shared by all questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from kept_rows import keep, kept
from torch import Tensor

from effattack.attacks.effort import tokens_through
from effattack.cells.spec import code_version
from effattack.models_zoo.generation.generator import Generator
from effattack.threats.edits import Added

CHOSEN_ON = (
    "How many legs has a spider?",
    "Where do polar bears live today?",
    "Who invented the electric light bulb?",
    "Which planet is closest to Earth?",
    "What shape is a soccer ball?",
    "Name one river in South America.",
)
"""Of seven tokens each, none of them in the benchmark; answered before the cap as they stand."""
WORDS = (256, 64, 16)
"""Words behind the first two questions, the next two, the last two."""
AT_ONCE = 8
"""Words that are tried together."""
ROWS = Path(__file__).with_suffix(".jsonl")


def carried(
    victim: Generator, counted: Generator, threat: Added, questions: Tensor
) -> Iterator[Callable[[Tensor], Tensor]]:
    """The words of the last stage, some at a time, as attacks on ``counted``; where none are kept
    yet, they are looked for on ``victim``."""
    if not ROWS.exists():
        for row in fitted(victim, threat, questions):
            keep(ROWS, row | {"code": code_version()})
    words = [row["word"] for row in kept(ROWS)[: WORDS[-1]]]
    for first in range(0, len(words), AT_ONCE):
        yield tried(counted, threat, words[first : first + AT_ONCE])


def fitted(victim: Generator, threat: Added, questions: Tensor) -> list[dict[str, Any]]:
    """A row per word, the longest texts of the last questions first: passes behind each question
    that it was run on, and tokens through the model.

    Args:
        victim: what writes.
        threat: a word behind a prompt, bound to the victim's domain.
        questions: (2 x stages, L), of one length.
    """
    tokenizer = victim.domain.tokenizer
    assert tokenizer is not None
    order = threat.domain.draw((WORDS[0],), torch.Generator().manual_seed(0)).unique().tolist()
    passes: dict[int, list[int]] = {word: [] for word in order}
    effort = dict.fromkeys(order, 0)
    for most, two in zip(WORDS, questions.split(2), strict=True):
        words = order[:most]
        for question in two:
            prompts = behind(threat, question[None], words)
            with torch.no_grad():
                trace = victim.trace(prompts)
            taken = tokens_through(prompts, trace).tolist()
            for word, length, tokens in zip(
                words, victim.spent(trace).tolist(), taken, strict=True
            ):
                passes[word].append(int(length))
                effort[word] += int(tokens)
        order.sort(key=lambda word: (len(passes[word]), sum(passes[word])), reverse=True)
    return [
        {"word": w, "text": tokenizer.decode([w]), "passes": passes[w], "effort": effort[w]}
        for w in order
    ]


def tried(victim: Generator, threat: Added, words: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """Prompts (B, L) -> each with the one of the words behind it that makes the longest text."""

    def worst(clean: Tensor) -> Tensor:
        prompts = behind(threat, clean, words)
        with torch.no_grad():
            passes = victim.spent(victim.trace(prompts)).view(len(clean), len(words))
        return prompts.view(len(clean), len(words), -1)[torch.arange(len(clean)), passes.argmax(1)]

    return worst


def behind(threat: Added, clean: Tensor, words: Sequence[int]) -> Tensor:
    """(B x n, L + 1): prompts (B, L) with each of n words behind them; as they stand where the
    tokenizer would read that otherwise."""
    many = clean.repeat_interleave(len(words), 0)
    added = torch.tensor([*words]).repeat(len(clean))[:, None]
    return threat.on_grid(threat.added(many, added), many)
