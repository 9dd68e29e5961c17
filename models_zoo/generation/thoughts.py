"""Sums and sorts that are thought about first: prompts with premises, whose answers are exact.

``"5291;34+58"`` asks for the last problem, those before it are premises. The chain works out what
it reads, in order, and the answer is the last result: ``"<2519,2159,1259;12,9,92>92"``. So a
premise is work, whether the question needs it or not; none of these questions does.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor

from effattack.domains.tokens import Tokens
from effattack.models_zoo.generation import sums

SIGNS = "0123456789+,;<>"
NEXT, OPEN, CLOSE = ";", "<", ">"
"""What stands between problems, and around the chain."""
TOKENIZER = sums.Characters(SIGNS)
VOCABULARY = 1 + len(SIGNS)
MARKS = VOCABULARY - 2, VOCABULARY - 1
LONGEST = 36
"""Tokens of the longest prompt; ours have up to 23."""
BUDGET, ANSWER = 40, 8
"""Most tokens of a chain with its close mark, and of an answer with its end token."""
PREMISES = (0.5, 0.4, 0.1)
"""How many of the prompts have no premise, one, two."""
DOMAIN = Tokens(VOCABULARY, LONGEST, TOKENIZER, special=(sums.END, *MARKS))


def thought(prompt: str) -> str:
    """The exact chain of a prompt, without its marks: every problem in order."""
    return NEXT.join(sums.solved(problem) for problem in prompt.split(NEXT))


def concluded(prompt: str) -> str:
    """The exact answer to a prompt: the result of its last problem."""
    return sums.solved(prompt.split(NEXT)[-1]).split(",")[-1]


@cache
def prompts(split: str) -> tuple[str, ...]:
    """The prompts of ``sums`` of one split, with premises from the same split before some of them;
    a premise with which the chain would not fit its budget is left out."""
    asked = sums.prompts(split)
    draw = np.random.Generator(np.random.PCG64((sums.SPLITS[split][0], 1)))
    found = []
    for question in asked:
        prompt = question
        for place in draw.integers(0, len(asked), draw.choice(len(PREMISES), p=PREMISES)):
            longer = asked[place] + NEXT + prompt
            if len(thought(longer)) < BUDGET:
                prompt = longer
        found.append(prompt)
    return tuple(found)


def thoughts(split: str) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) and exact answers (B, M), padded, of one split: train, heldout or test."""
    asked = prompts(split)
    answers = [concluded(prompt) for prompt in asked]
    return sums.encoded(asked, TOKENIZER), sums.encoded(answers, TOKENIZER)


def written_out(split: str) -> Tensor:
    """The exact texts (B, M) to the prompts of a split: chain, close mark and answer, padded."""
    texts = [thought(prompt) + CLOSE + concluded(prompt) for prompt in prompts(split)]
    return sums.encoded(texts, TOKENIZER)


def scored_prompts() -> tuple[Tensor, Tensor]:
    """The 200 test prompts that embedded victims are scored on, and their exact answers."""
    return thoughts("test")
