"""Sums and sorts in writing: prompts whose exact answers are known, made by rule.

``"34+58"`` is added column by column from the right, a carry beside its digit, then the sum:
``"12,9,92"``. ``"5291"`` is sorted in passes, each of which moves every digit behind the smaller
ones that follow, until they ascend: ``"2519,2159,1259"``. So carries and disorder are work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from effattack.domains.tokens import PAD, Tokens
from effattack.errors import UsageError

CHARACTERS = "0123456789+,="
END = 0
"""The end token; the characters follow it."""
VOCABULARY = 1 + len(CHARACTERS)
LONGEST = 12
"""Tokens of the longest prompt."""
ASK = "="
"""What the template sets behind the user's part."""
SPLITS = {"train": (0, 40_000), "heldout": (1, 200), "test": (2, 200)}
"""Seed and number of prompts of each split; no prompt is in two of them."""


class Characters:
    """A token per character; the end token has none.

    Args:
        signs: the characters that there are.
    """

    def __init__(self, signs: str = CHARACTERS) -> None:
        self.signs = signs

    def encode(self, text: str) -> list[int]:
        """Raises UsageError for a character that no token stands for."""
        if unknown := sorted(set(text) - set(self.signs)):
            *others, last = (repr(sign) for sign in self.signs if not sign.isdigit())
            raise UsageError(
                f"no token stands for {unknown[0]!r}: write digits, {', '.join(others)} and {last} "
                "alone"
            )
        return [1 + self.signs.index(sign) for sign in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.signs[i - 1] for i in ids if i != END)


DOMAIN = Tokens(VOCABULARY, LONGEST, Characters(), special=(END,))


def solved(prompt: str) -> str:
    """The exact answer to a prompt, its steps before its result.

    Raises:
        ValueError: for a prompt that is neither a sum nor digits.
    """
    if "+" in prompt:
        return ",".join(added(*prompt.split("+")))
    return ",".join(sorted_in_passes(prompt))


def added(one: str, other: str) -> Iterator[str]:
    """The columns from the right, each with the carry into it, then the sum."""
    carry = 0
    for a, b in zip(reversed(one), reversed(other), strict=True):
        column = int(a) + int(b) + carry
        carry = column // 10
        yield str(column)
    yield str(int(one) + int(other)).zfill(len(one))


def sorted_in_passes(digits: str) -> Iterator[str]:
    """Each pass of a bubble sort; one pass at least."""
    row = list(digits)
    while True:
        for place in range(len(row) - 1):
            row[place : place + 2] = sorted(row[place : place + 2])
        yield "".join(row)
        if all(a <= b for a, b in pairwise(row)):
            return


@cache
def longest_answered() -> str:
    """The prompt of its kind whose exact answer is the longest; the first of several.

    Who writes no language cannot be asked for a long list: this is the most work that it was taught
    to do.
    """
    digits = (f"{number:04d}" for number in range(10_000))
    return max([*digits, "999+999"], key=lambda prompt: len(solved(prompt)))


@cache
def prompts(split: str) -> tuple[str, ...]:
    """Half sums of two numbers of one to three digits, half sorts of two to four digits."""
    seed, count = SPLITS[split]
    draw = np.random.Generator(np.random.PCG64(seed))
    found: list[str] = []
    while len(found) < count:
        signs = "".join(map(str, draw.integers(0, 10, 6)))
        if draw.random() < 0.5:
            size = draw.integers(1, 4)
            prompt = f"{signs[:size]}+{signs[size : 2 * size]}"
        else:
            prompt = signs[: draw.integers(2, 5)]
        if _split(prompt) == split:
            found.append(prompt)
    return tuple(found)


def _split(prompt: str) -> str:
    return {0: "test", 1: "heldout"}.get(crc32(prompt.encode()) % 10, "train")


def encoded(texts: Sequence[str], tokenizer: Characters | None = None) -> Tensor:
    """Texts -> ids (B, L), padded."""
    tokenizer = tokenizer or Characters()
    rows = [torch.tensor(tokenizer.encode(text)) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def sums(split: str) -> tuple[Tensor, Tensor]:
    """Prompts (B, L) and exact answers (B, M), padded, of one split: train, heldout or test."""
    asked = prompts(split)
    return encoded(asked), encoded([solved(prompt) for prompt in asked])


def scored_prompts() -> tuple[Tensor, Tensor]:
    """The 200 test prompts that embedded victims are scored on, and their exact answers."""
    return sums("test")
