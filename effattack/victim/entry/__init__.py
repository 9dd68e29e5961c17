"""Victims behind the pre-processing that stands before them in use."""

from effattack.victim.entry.entry import Entry
from effattack.victim.entry.squeezing import bits, median
from effattack.victim.entry.steps import (
    center_crop,
    jpeg,
    random_crop,
    random_flip,
    resize,
    webp,
)
from effattack.victim.entry.written import entry_of, read_steps

__all__ = [
    "Entry",
    "bits",
    "center_crop",
    "entry_of",
    "jpeg",
    "median",
    "random_crop",
    "random_flip",
    "read_steps",
    "resize",
    "webp",
]
