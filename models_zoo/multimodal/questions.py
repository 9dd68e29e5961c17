"""Scenes with questions whose answers are known, made by rule.

"how many sevens", "is there a three left of the five", "largest digit", of the composed scenes of
:mod:`effattack.models_zoo.detection.scenes`: their boxes and classes are the answers.
"""

from __future__ import annotations

from functools import cache

import torch
from numpy.random import PCG64, Generator
from torch import Tensor

from effattack.domains import Parts, PartsBatch, Tokens
from effattack.domains.tokens import PAD
from effattack.errors import UsageError
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.text.pieces import Pieces

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MANY = tuple(f"{digit}es" if digit == "six" else f"{digit}s" for digit in DIGITS)
WORDS = ("how", "many", "is", "there", "a", "left", "of", "the", "largest", "digit", *DIGITS, *MANY)
LONGEST = 8
ANSWERS = (*"0123456789", "yes", "no")
YES, NO = ANSWERS.index("yes"), ANSWERS.index("no")
DOMAIN = Parts(image=scenes.DOMAIN, question=Tokens(len(WORDS), LONGEST, Pieces(WORDS)))
_SPLITS = {"train": (10, 8), "heldout": (11, 3), "test": (12, 1)}
"""Seed of each split, and questions of every scene."""


@cache
def drawn(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of a split: the scene of each question, questions (B, 8), and answers (B,)."""
    seed, each = _SPLITS[split]
    draw = Generator(PCG64(seed))
    _, boxes = scenes.scenes(split)
    asked = [question(rows[rows[:, 4] >= 0], draw) for rows in boxes for _ in range(each)]
    return (
        torch.arange(len(boxes)).repeat_interleave(each),
        torch.stack([written(text) for text, _ in asked]),
        torch.tensor([a for _, a in asked]),
    )


def written(text: str) -> Tensor:
    """A question as ids (LONGEST,), padded behind its end.

    Raises:
        UsageError: for a word that no question has, or more words than one reads.
    """
    words = text.split()
    if unknown := [word for word in words if word not in WORDS]:
        raise UsageError(f"{unknown[0]!r} is no word of these questions: use {', '.join(WORDS)}")
    if not 0 < len(words) <= LONGEST:
        raise UsageError(f"a question of {len(words)} words: write 1 to {LONGEST}")
    found = torch.full((LONGEST,), PAD)
    found[: len(words)] = torch.tensor([WORDS.index(word) for word in words])
    return found


def asked(split: str) -> tuple[PartsBatch, Tensor]:
    """Images with questions, and the answers (B,) by their place in ``ANSWERS``.

    Args:
        split: train, heldout or test: scenes with digits of that split.
    """
    rows, ids, answers = drawn(split)
    images, _ = scenes.scenes(split)
    return PartsBatch({"image": images[rows], "question": ids.clone()}), answers.clone()


def scored_questions() -> tuple[PartsBatch, Tensor]:
    """The 200 test scenes, a question each."""
    return asked("test")


def scored_conclusions() -> tuple[PartsBatch, Tensor]:
    """The same, with answers (B, 1) as one sign of a text."""
    batch, answers = asked("test")
    return batch, answers[:, None]


def question(boxes: Tensor, draw: Generator) -> tuple[str, int]:
    """A question about a scene with boxes (n, 6), and its answer.

    Six in ten digits that are counted are there; where a scene has two different ones, both of
    three in four pairs that are compared.

    Raises:
        UsageError: for a scene without a digit.
    """
    if not len(boxes):
        raise UsageError("a scene without a digit: it has no largest one; ask of one that has some")
    kinds = boxes[:, 5].long().tolist()
    if (form := draw.integers(3)) == 0:
        wanted = int(draw.choice(kinds)) if draw.random() < 0.5 else int(draw.integers(10))
        return f"how many {MANY[wanted]}", kinds.count(wanted)
    if form == 1:
        return "largest digit", max(kinds)
    different = sorted(set(kinds))
    if len(different) > 1 and draw.random() < 0.75:
        one, other = draw.permutation(different)[:2].tolist()
    else:
        one, other = draw.permutation(10)[:2].tolist()
    there = left_of(boxes, one, other)
    return f"is there a {DIGITS[one]} left of the {DIGITS[other]}", YES if there else NO


def left_of(boxes: Tensor, one: int, other: int) -> bool:
    """Whether some digit ``one`` has its middle left of that of some digit ``other``."""
    middles, kinds = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 5]
    return bool((middles[kinds == one][:, None] < middles[kinds == other]).any())


def row_of(boxes: Tensor) -> str:
    """The digits of a scene from left to right: ``"737"``."""
    order = (boxes[:, 0] + boxes[:, 2]).argsort()
    return "".join(str(int(kind)) for kind in boxes[order, 5])
