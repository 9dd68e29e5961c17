"""A file of generated inputs after a file of given ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from effattack.errors import UsageError
from effattack.inputs.fidelity import Fidelity, fidelity
from effattack.inputs.imitated_files import format_of
from effattack.inputs.imitation import Sample
from effattack.streams import on_one_line

LEAST = 10
"""Given inputs; of fewer, halves are too small to tell anything apart."""
LEAST_OF_CLASS = 4
"""Of each class."""


class Made(NamedTuple):
    """A file of generated inputs."""

    out: Path
    measure: str
    """What the mean and the spread are of."""
    fidelity: Fidelity
    mark: str
    """What the file says of itself."""


def imitate(like: Path, count: int, seed: int = 0, out: Path | None = None) -> Made:
    """Write ``count`` inputs that are made after those of a file, in the format of that file.

    Args:
        like: an ``.npz`` of floats or of ids, a ``.csv`` or ``.ts`` of series, a ``.jsonl`` of
            texts, or a folder of images by class (read as RGB).
        count: at least :data:`LEAST`.
        seed: of all draws.
        out: where nothing is yet; by default ``NAME_generated`` beside the file.

    Raises:
        UsageError: for what cannot be read or imitated: too few inputs, labels that are neither
            classes nor tags; for a file that is there already.
    """
    like = like.absolute()
    out = out or like.with_name(f"{like.stem}_generated{like.suffix}")
    if out.exists():
        raise UsageError(f"{on_one_line(out)} is there already: move it, or give another --out")
    if out.suffix != like.suffix:
        raise UsageError(f"--out {on_one_line(out)}: it is written as {like.suffix or 'a folder'}")
    if count < LEAST:
        raise UsageError(f"--count {count}: make at least {LEAST}")
    form = format_of(like)
    given: Sample = form.read(like)
    _expect_enough(given, like)
    draw = np.random.default_rng(seed)
    made = given.imitated(count, draw)
    found = fidelity(given, made, draw)
    mark = _mark(given, count, seed, like, found)
    try:
        form.write(like, out, made, mark)
    except OSError as error:
        raise UsageError(
            f"cannot write {on_one_line(out)} ({error.strerror}): give another --out"
        ) from error
    return Made(out, given.measure, found, mark)


def _expect_enough(given: Sample, like: Path) -> None:
    if len(given) < LEAST:
        raise UsageError(
            f"{on_one_line(like)} holds {len(given)} inputs, too few to imitate: give at least "
            f"{LEAST}, and {LEAST_OF_CLASS} of each class"
        )
    label, fewest = Counter(given.classes).most_common()[-1]
    if fewest < LEAST_OF_CLASS:
        raise UsageError(
            f"{on_one_line(like)} holds {fewest} inputs of class {label}, too few to imitate: give "
            f"at least {LEAST_OF_CLASS} of each class, or leave that class out"
        )


def _mark(given: Sample, count: int, seed: int, like: Path, found: Fidelity) -> str:
    """One sentence."""
    told = "tells them apart" if found.differ else "does not tell them apart beyond chance"
    shares = (found.told_apart, found.by_chance, found.copies)
    right, chance, copies = (f"{100 * share:.0f} %" for share in shares)
    return (
        f"{count} inputs imitate the {len(given)} of {on_one_line(like.name)} by {given.model} "
        f"(seed {seed}); a classifier {told} ({right} right, by chance 50 ± {chance}), {copies} "
        "are copies; scores on them are not scores on inputs of yours"
    )
