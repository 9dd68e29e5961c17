"""Scenes that hold the same digit several times, and how many there are.

The scenes of :mod:`effattack.models_zoo.detection.scenes` seldom do: whoever tells apart whether a
digit is there at all answers most questions about them. Here the digits of a scene are of two
classes, otherwise planned and drawn as there.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.random import PCG64, Generator
from torch import Tensor

from effattack.domains import PartsBatch
from effattack.models_zoo.detection import scenes
from effattack.models_zoo.detection.scenes import SHIFTS, Plan, draw_scene, plan
from effattack.models_zoo.digits import small_digits
from effattack.models_zoo.multimodal.questions import DIGITS, MANY, written

STRANGE = 0.2
"""Share of the questions that ask for any digit, not for one of the two."""
_SPLITS = {"train": (20, 4000, 4), "heldout": (21, 200, 3), "test": (22, 200, 1)}
"""Seed of each split, its scenes, and questions of every scene."""


@cache
def drawn(split: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of a split: images (n, 1, 64, 64) with boxes (n, 4, 6); and of each question its scene,
    its words (B, 8), and the answer (B,)."""
    seed, count, each = _SPLITS[split]
    draw = Generator(PCG64(seed))
    small, labels = small_digits(split)
    digits, classes = small[:, 0].double().numpy(), labels.numpy()
    plans = [of_two(plan(draw, len(digits)), classes, draw) for _ in range(count)]
    images, boxes = (
        torch.from_numpy(np.stack(part)).float()
        for part in zip(
            *(draw_scene(each, digits, classes, SHIFTS["none"]) for each in plans), strict=True
        )
    )
    asked = [how_many(rows[rows[:, 4] >= 0], draw) for rows in boxes for _ in range(each)]
    return (
        scenes.DOMAIN.snap(images[:, None].clamp(0, 1)),
        boxes,
        torch.arange(count).repeat_interleave(each),
        torch.stack([written(text) for text, _ in asked]),
        torch.tensor([answer for _, answer in asked]),
    )


def counted(split: str) -> tuple[PartsBatch, Tensor]:
    """Images with questions, and how many there are (B,): that number's place in ``ANSWERS``.

    Args:
        split: train, heldout or test: scenes with digits of that split.
    """
    images, _, rows, ids, answers = drawn(split)
    return PartsBatch({"image": images[rows], "question": ids.clone()}), answers.clone()


def scored_counts() -> tuple[PartsBatch, Tensor]:
    """200 test scenes, a question each."""
    return counted("test")


def of_two(plan: Plan, classes: np.ndarray, draw: Generator) -> Plan:
    """A plan whose digits are drawn anew from two classes, of those with classes (n,)."""
    two = draw.permutation(len(DIGITS))[:2]
    rows = [int(draw.choice(np.flatnonzero(classes == draw.choice(two)))) for _ in plan.digits]
    return plan._replace(
        digits=tuple(one._replace(row=row) for one, row in zip(plan.digits, rows, strict=True))
    )


def how_many(boxes: Tensor, draw: Generator) -> tuple[str, int]:
    """A question about a scene with boxes (n, 6), and its answer."""
    kinds = boxes[:, 5].long().tolist()
    wanted = int(draw.integers(len(DIGITS)) if draw.random() < STRANGE else draw.choice(kinds))
    return f"how many {MANY[wanted]}", kinds.count(wanted)
