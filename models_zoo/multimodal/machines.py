"""Machines watched by a vibration sensor and a camera: made by rule, so that labels are exact.

Three faults show in the vibration: a rotor out of balance as a stronger first harmonic of the
revolution, a shaft out of line as a stronger second and third, a bearing as impacts that ring
several times per revolution. Two show in the picture alone, a crack and a leak of oil. A machine
that shakes blurs its picture a little: upright where it is out of balance, along the shaft where it
is out of line.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.random import PCG64, Generator
from torch import Tensor

from effattack.domains import Parts, PartsBatch
from effattack.domains.pixels import Pixels
from effattack.domains.series import Series
from effattack.models_zoo.detection.scenes import enlarged

CLASSES = ("sound", "out of balance", "out of line", "bearing", "cracked", "leaking")
VIBRATION, CAMERA = "vibration", "camera"
LENGTH, SIDE = 128, 32
DOMAIN = Parts(
    vibration=Series(channels=1, length=LENGTH, low=-4, high=4, step=2**-9, deviation=0.667),
    camera=Pixels((3, SIDE, SIDE)),
)
"""What a sensor of 12 bits resolves between -4 g and 4 g, with the deviation of all training
values; and colour images."""
IMPACTS = 3.6
"""Of a faulty bearing, per revolution."""
RING, FADE = 0.3, 5.0
"""Cycles per sample in which it rings after an impact, and samples in which that fades to 1/e."""
COARSE = 9
"""Knots of the light on the housing, along one side."""
OIL = (0.75, 0.6, 0.4)
"""Share of red, green and blue that a film of oil lets through."""
_SPLITS = {"train": (20, 3600), "heldout": (21, 600), "test": (22, 300)}
"""Seed and number of machines of each split."""


def watched(split: str) -> tuple[PartsBatch, Tensor]:
    """Vibrations (B, 1, 128) and pictures (B, 3, 32, 32) of machines, and their classes (B,).

    Args:
        split: train, heldout or test.
    """
    batch, labels = _drawn(split)
    return batch.clone(), labels.clone()


def scored_machines() -> tuple[PartsBatch, Tensor]:
    """The 300 test machines."""
    return watched("test")


def scored_vibrations() -> tuple[PartsBatch, Tensor]:
    """The same without their camera."""
    return without(watched("test"), CAMERA)


def scored_pictures() -> tuple[PartsBatch, Tensor]:
    """The same without their sensor."""
    return without(watched("test"), VIBRATION)


def without(machines: tuple[PartsBatch, Tensor], part: str) -> tuple[PartsBatch, Tensor]:
    """Machines one part of which is missing."""
    batch, labels = machines
    return PartsBatch({name: own for name, own in batch.parts.items() if name != part}), labels


def vibration(kind: int, severity: float, draw: Generator) -> np.ndarray:
    """Acceleration (128,) in g of a machine of a class, its fault so severe, in (0, 1]."""
    turns = np.arange(LENGTH) * draw.uniform(8, 12) / LENGTH + draw.random()
    first, second, third = draw.uniform((0.3, 0.1, 0.05), (0.6, 0.3, 0.15))
    if CLASSES[kind] == "out of balance":
        first += 1.2 * severity
    if CLASSES[kind] == "out of line":
        second, third = second + severity, third + 0.4 * severity
    phases = draw.uniform(0, 2 * np.pi, 3)
    signal = sum(
        size * np.sin(2 * np.pi * order * turns + phase)
        for order, size, phase in zip((1, 2, 3), (first, second, third), phases, strict=True)
    )
    if CLASSES[kind] == "bearing":
        signal = signal + 1.6 * severity * ringing(turns)
    return signal + 0.3 * draw.standard_normal(LENGTH)


def ringing(turns: np.ndarray) -> np.ndarray:
    """What impacts leave behind, of revolutions (T,): each rings, and fades before the next."""
    since = (turns * IMPACTS % 1) / (np.gradient(turns) * IMPACTS)
    return np.exp(-since / FADE) * np.cos(2 * np.pi * RING * since)


def picture(kind: int, severity: float, draw: Generator) -> np.ndarray:
    """Ground metal (3, 32, 32) in [0, 1], with what a fault of the class leaves on it.

    Every picture has a straight scratch and a shadow, which are no faults.
    """
    light = enlarged(draw.uniform(0.4, 0.75, (COARSE, COARSE)), SIDE)
    ground = light + 0.05 * draw.standard_normal(light.shape)
    ground += 0.06 * draw.standard_normal((SIDE, 1)) + 0.06 * draw.standard_normal((1, SIDE))
    ground *= 1 - 0.4 * line(draw.uniform(0.3, 1), draw, bends=False)
    ground *= 1 - 0.4 * film(draw.uniform(0.3, 1), draw)
    if CLASSES[kind] == "cracked":
        ground *= 1 - 0.5 * line(severity, draw, bends=True)
    if CLASSES[kind] == "out of balance":
        ground = shaken(ground, severity, axis=0)
    if CLASSES[kind] == "out of line":
        ground = shaken(ground, severity, axis=1)
    colours = ground * draw.uniform(0.9, 1.1, (3, 1, 1))
    if CLASSES[kind] == "leaking":
        colours *= 1 - film(severity, draw) * (1 - np.array(OIL)[:, None, None])
    return colours + 0.02 * draw.standard_normal(colours.shape)


def line(severity: float, draw: Generator, *, bends: bool) -> np.ndarray:
    """(32, 32), 1 along a line from above to below, the longer the more severe it is.

    One that bends wanders; else it leans to one side all the way.
    """
    found = np.zeros((SIDE, SIDE))
    length = round(6 + 12 * severity)
    top, across = draw.integers(2, SIDE - length - 2), draw.uniform(8, SIDE - 8)
    lean = draw.uniform(-0.4, 0.4)
    for down in range(length):
        found[top + down, int(across) % SIDE] = 1
        across += draw.choice((-1.3, 1.3)) if bends else lean
    return found


def film(severity: float, draw: Generator) -> np.ndarray:
    """(32, 32) in [0, 1]: what has run down, with a soft edge, the more severe the wider."""
    middle, width = draw.uniform(8, SIDE - 8, 2), 2 + 2.5 * severity
    down, across = np.mgrid[:SIDE, :SIDE] - middle[:, None, None]
    distance = np.hypot(across / width, down / (2 * width))
    return 1 / (1 + np.exp(8 * (distance - 1)))


def shaken(image: np.ndarray, severity: float, axis: int) -> np.ndarray:
    """An image that moved by a pixel to both sides for a share of the exposure."""
    moved = (np.roll(image, 1, axis) + np.roll(image, -1, axis)) / 2
    return image + 0.3 * severity * (moved - image)


@cache
def _drawn(split: str) -> tuple[PartsBatch, Tensor]:
    seed, count = _SPLITS[split]
    draw = Generator(PCG64(seed))
    labels = draw.permutation(np.arange(count) % len(CLASSES))
    severe = draw.uniform(0.25, 1, count)
    pairs = [
        (vibration(kind, severity, draw), picture(kind, severity, draw))
        for kind, severity in zip(labels, severe, strict=True)
    ]
    series, images = (torch.from_numpy(np.stack(part)).float() for part in zip(*pairs, strict=True))
    found = PartsBatch({VIBRATION: series[:, None].clamp(-4, 4), CAMERA: images.clamp(0, 1)})
    return DOMAIN.snap(found), torch.from_numpy(labels)
