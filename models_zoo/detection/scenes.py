"""Scenes: digits of several sizes on a textured ground, composed by rule, with exact boxes.

Each scene is planned first (which digits of scikit-learn's, where, how large, on what ground) and
then drawn. A domain shift draws the same plans another way: on the level of the image (its light,
its style) or of the instances (their size, their look), as Chen et al. 2018 (arXiv 1803.03243) tell
the two apart. Digits of the test split stand in test scenes only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import PCG64, Generator
from torch import Tensor

from effattack.domains.pixels import Pixels
from effattack.errors import unknown_name
from effattack.models_zoo.digits import small_digits

SIDE = 64
DOMAIN = Pixels((1, SIDE, SIDE))
MOST = 4
"""Digits in one scene, at least one."""
SIZES = (14, 26)
"""Pixels of a digit's frame, the last one excluded."""
INK = 0.25
"""A digit's box holds all its pixels from this share of full ink on."""
COARSE = 9
"""Knots of the ground along one side."""
_SPLITS = {"train": (0, 4000), "heldout": (1, 200), "test": (2, 200)}
"""Seed and number of scenes of each split."""


class Placed(NamedTuple):
    """One digit of a scene: which one of its split, and where."""

    row: int
    centre: tuple[float, float]
    """Across and down, in pixels."""
    size: int
    light: float
    """Of full ink, in [0, 1]."""


class Plan(NamedTuple):
    """A scene before it is drawn."""

    digits: tuple[Placed, ...]
    ground: np.ndarray
    """(9, 9) in [0, 1]: knots, light and dark."""
    grain: np.ndarray
    """(64, 64): noise of a camera, unit deviation."""


def as_it_is(drawn: np.ndarray) -> np.ndarray:
    """No shift."""
    return drawn


def hollow(ink: np.ndarray) -> np.ndarray:
    """Strokes without their core: 4 i (1 - i) of ink i above a half."""
    return np.where(ink > 0.5, np.maximum(4 * ink * (1 - ink), 0.3), ink)


def woven(ground: np.ndarray) -> np.ndarray:
    """A ground of 64 x 64 with threads, every eighth line of pixels, in both directions."""
    thread = 0.5 + 0.5 * np.cos(np.arange(SIDE) * np.pi / 4)
    return ground * (0.4 + 1.2 * np.maximum(thread[:, None], thread[None]))


def dusk(scene: np.ndarray) -> np.ndarray:
    """Half of the light at the left edge, a quarter at the right, and a veil over all."""
    return 0.15 + scene * np.linspace(0.5, 0.25, SIDE)


class Shift(NamedTuple):
    """What is drawn otherwise."""

    level: str
    size: float = 1.0
    """Of a digit's frame, at most 1: about its centre."""
    ink: Callable[[np.ndarray], np.ndarray] = as_it_is
    ground: Callable[[np.ndarray], np.ndarray] = as_it_is
    light: Callable[[np.ndarray], np.ndarray] = as_it_is


SHIFTS = {
    "none": Shift("none"),
    "light": Shift("image", light=dusk),
    "style": Shift("image", ground=woven),
    "size": Shift("instance", size=0.7),
    "look": Shift("instance", ink=hollow),
}


def scenes(split: str, shift: str = "none") -> tuple[Tensor, Tensor]:
    """Images (B, 1, 64, 64) of one split, and their boxes (B, 4, 6) as task ``Boxes`` has them.

    Args:
        split: train, heldout or test.
        shift: none, light, style, size or look; the digits and their centres stay.

    Raises:
        UsageError: for an unknown shift.
    """
    if shift not in SHIFTS:
        raise unknown_name("shift", shift, SHIFTS)
    images, labels = _drawn(split, shift)
    return images.clone(), labels.clone()


def scored_scenes() -> tuple[Tensor, Tensor]:
    """The 200 test scenes that embedded detectors are scored on."""
    return scenes("test")


def plan(draw: Generator, digits: int) -> Plan:
    """The next scene of a generator, of a split with so many digits; frames do not overlap."""
    placed: list[Placed] = []
    wanted = draw.integers(1, MOST + 1)
    while len(placed) < wanted:
        size = int(draw.integers(*SIZES))
        corner = draw.integers(0, SIDE - size + 1, 2)
        centre = (float(corner[0] + size / 2), float(corner[1] + size / 2))
        digit = Placed(int(draw.integers(digits)), centre, size, draw.uniform(0.7, 1.0))
        if all(_apart(digit, other) for other in placed):
            placed.append(digit)
    ground = draw.uniform(0.0, 0.45, (COARSE, COARSE))
    return Plan(tuple(placed), ground, draw.standard_normal((SIDE, SIDE)))


def draw_scene(
    plan: Plan, digits: np.ndarray, classes: np.ndarray, shift: Shift
) -> tuple[np.ndarray, np.ndarray]:
    """A scene (64, 64) and its boxes (4, 6), of digits (n, 8, 8) in [0, 1] with classes (n,)."""
    scene = shift.ground(enlarged(plan.ground, SIDE)) + 0.03 * plan.grain
    boxes = np.full((MOST, 6), -1.0)
    for box, digit in zip(boxes, plan.digits, strict=False):
        side = round(digit.size * shift.size)
        ink = enlarged(digits[digit.row], side)
        left, top = (int(middle - side / 2) for middle in digit.centre)
        place = scene[top : top + side, left : left + side]
        cover = shift.ink(ink)
        place[:] = (1 - cover) * place + cover * digit.light
        down, across = (np.flatnonzero((ink >= INK).any(axis)) for axis in (1, 0))
        box[:4] = left + across[0], top + down[0], left + across[-1] + 1, top + down[-1] + 1
        box[4:] = 1, classes[digit.row]
    return shift.light(scene), boxes


def enlarged(small: np.ndarray, side: int) -> np.ndarray:
    """(n, n) -> (side, side), bilinear between the centres of pixels."""
    count = len(small)
    seen = np.clip((np.arange(side) + 0.5) * count / side - 0.5, 0, count - 1)
    weights = np.maximum(0, 1 - np.abs(seen[:, None] - np.arange(count)))
    return weights @ small @ weights.T


@cache
def _drawn(split: str, shift: str) -> tuple[Tensor, Tensor]:
    seed, count = _SPLITS[split]
    draw = Generator(PCG64(seed))
    small, labels = small_digits(split)
    digits, classes = small[:, 0].double().numpy(), labels.numpy()
    drawn = [
        draw_scene(plan(draw, len(digits)), digits, classes, SHIFTS[shift]) for _ in range(count)
    ]
    images, boxes = (torch.from_numpy(np.stack(part)).float() for part in zip(*drawn, strict=True))
    return DOMAIN.snap(images[:, None].clamp(0, 1)), boxes


def _apart(a: Placed, b: Placed) -> bool:
    reach = (a.size + b.size) / 2
    return any(abs(x - y) >= reach for x, y in zip(a.centre, b.centre, strict=True))
